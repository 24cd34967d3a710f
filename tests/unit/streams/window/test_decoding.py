"""What the narrow types learn, and how much of it: names that repeat, fields that come, and no more than the limits."""

from __future__ import annotations

from typing import Any

import pytest

from streams.window import decoding
from streams.window.decoding import NarrowDecoder, source_decoders
from unship.codec import decode_value, encode_line
from unship.events import Feedback, Prediction


def prediction(number: int, version: Any = "v", **slices: Any) -> bytes:
    return encode_line(Prediction(id=f"p{number}", model="m", version=version, output=1, slices=slices))


def listed(decoder: NarrowDecoder, name: str) -> set[str]:
    """Return the values of a name that are listed; white box, as they change the speed alone."""
    return set(decoder._types["prediction"]._listed.get(name, {}))


def narrow_share(decoder: NarrowDecoder, values: list[bytes]) -> float:
    block = decoder.decode(values)
    return 1 - len(block.odd) / len(values)


def test_names_and_slices_that_occur_are_listed() -> None:
    decoder = source_decoders()[0]
    # A number in a slice is what makes the types be learned again.
    values = [prediction(number, f"v{number % 3}", country=f"c{number % 2}", plan=1) for number in range(20)]
    assert narrow_share(decoder, values) == 1
    assert listed(decoder, "version") == {"v0", "v1", "v2"}
    assert listed(decoder, "model") == {"m"}
    assert listed(decoder, "s0") == {"c0", "c1"}
    # Now the narrow type accepts all of them by itself.
    made = decoder._types["prediction"].made
    assert {item.__class__ for item in decoder.decode(values).items} == {made}


def test_name_with_too_many_values_is_listed_no_more_and_no_list_grows() -> None:
    decoder = source_decoders()[0]
    for begin in range(0, 5_000, 500):
        values = [prediction(number, f"v{number}", country="DE", plan=1) for number in range(begin, begin + 500)]
        assert narrow_share(decoder, values) == 1
    assert decoding.LISTED_MAX <= len(listed(decoder, "version")) < 2 * decoding.LISTED_MAX
    made = decoder._types["prediction"].made
    assert {item.__class__ for item in decoder.decode([prediction(1, "never before", country="DE", plan=1)]).items} == {
        made
    }


def test_stream_that_brings_other_fields_each_time_is_still_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LEARNED_MAX", 8)
    decoder = source_decoders()[0]
    for number in range(60):
        value = prediction(number, f"v{number}", **{f"slice-{number}": 1})
        value = value[:-1] + b',"new-%d":{"x":[1]}}' % number
        (item,) = decoder.decode([value]).items
        expected = decode_value("prediction", value)
        assert isinstance(expected, Prediction)
        assert (item.id, item.version) == (expected.id, expected.version)
    assert decoder._learned == 8
    assert len(decoder.shape_of("prediction").slices) <= 8


def test_event_with_too_many_unknown_fields_or_slices_is_left_to_the_codec() -> None:
    decoder = source_decoders()[0]
    many = b",".join(b'"new-%d":0' % number for number in range(decoding.UNKNOWN_MAX + 1))
    values = [prediction(1)[:-1] + b"," + many + b"}", prediction(2, **{f"s-{number}": 1 for number in range(32)})]
    block = decoder.decode(values)
    assert block.odd == [0]
    assert decoder.decode([prediction(3, another=1), prediction(4)]).odd == [0]
    assert repr(block.items[0]) == repr(decode_value("prediction", values[0]))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\0"])
def test_slice_whose_name_no_type_can_have_is_left_to_the_codec(name: str) -> None:
    decoder = source_decoders()[0]
    values = [prediction(1, **{name: "x"}), prediction(2, country="DE")]
    block = decoder.decode(values)
    assert block.odd == [0]
    assert block.items[0] == decode_value("prediction", values[0])
    assert decoder.shape_of("prediction").slices == ("country",)


def test_feedback_without_a_truth_is_left_to_the_codec() -> None:
    decoder = source_decoders()[1]
    block = decoder.decode([encode_line(Feedback(id="p", engagement=0.5)), encode_line(Feedback(id="p", truth=0))])
    assert block.odd == [0]
    assert block.items[0] == Feedback(id="p", engagement=0.5)
