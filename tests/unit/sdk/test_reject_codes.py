"""The vocabulary of rejections is closed, explained and pinned: dashboards and dead letters rely on it."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from unship.rejections import DECODING_CODES, RejectCode, Rejection


def test_codes_are_pinned() -> None:
    assert [str(code) for code in RejectCode] == [
        "TOO_LARGE",
        "NOT_UTF8",
        "BAD_JSON",
        "TOO_DEEP",
        "UNKNOWN_TYPE",
        "BAD_EVENT",
        "BAD_TIME",
        "NUMBER_OUT_OF_RANGE",
        "FUTURE_TS",
        "DUPLICATE",
        "CONFLICTING_PREDICTION",
        "DUPLICATE_FEEDBACK",
        "CONFLICTING_FEEDBACK",
        "UNMATCHED_FEEDBACK",
        "AFTER_MATURITY",
        "LATE_FEEDBACK",
        "REVISED_LATE",
        "RETRACTED",
        "ROLE_MISMATCH",
        "STILL_SERVED",
        "MISSING_SCORE",
        "MISSING_LATENCY",
        "UNUSABLE_TRUTH",
        "UNUSABLE_OUTPUT",
        "STALE_DEPLOYMENT",
        "DUPLICATE_DEPLOYMENT",
        "DUPLICATE_ACT",
        "CLOCK_AHEAD",
        "UNSIGNED_ACT",
        "UNSIGNED_DEPLOYMENT",
        "ACT_EXPIRED",
        "ACT_REPEATED",
        "WRONG_AUDIENCE",
        "FORGED_CONTROL",
        "MODEL_LIMIT",
        "VERSION_LIMIT",
        "REQUEST_LIMIT",
        "REFERENCE_IMPLAUSIBLE",
        "REPLICA_LIMIT",
        "MISROUTED",
        "HOLE",
        "FOREIGN_BATCH",
        "GAP",
        "NOT_JUDGED",
    ]


@pytest.mark.parametrize("code", RejectCode)
def test_every_code_is_its_own_name_and_has_one_sentence(code: RejectCode) -> None:
    assert code.name == code.value == str(code)
    assert code.meaning.endswith(".")


def test_meanings_differ() -> None:
    assert len({code.meaning for code in RejectCode}) == len(RejectCode)


def test_decoding_codes_are_the_first_of_the_list() -> None:
    assert list(RejectCode)[: len(DECODING_CODES)] == sorted(DECODING_CODES, key=list(RejectCode).index)


def test_rejection_survives_json_and_pickle() -> None:
    rejection = Rejection(RejectCode.DUPLICATE, "seen at line 7")
    assert msgspec.json.decode(msgspec.json.encode(rejection), type=Rejection) == rejection
    assert pickle.loads(pickle.dumps(RejectCode.DUPLICATE)) is RejectCode.DUPLICATE


def test_rejection_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Rejection(RejectCode.DUPLICATE).code = RejectCode.BAD_JSON  # type: ignore[misc]
