"""A replay prints the same bytes: twice, for every batch, and however often it is stopped and goes on."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actions.journal import Decision, decision_bytes, digest_of
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.recordings.replay import Replay
from tests.effort import some_of
from tests.plans import EVERYTHING, START, Plan, config_of, events_of, plans
from unship.codec import encode_line
from unship.errors import SnapshotError


def recording_of(plan: Plan) -> bytes:
    rng = random.Random(plan.seed + 1)
    lines: list[bytes] = []
    for _, event in events_of(plan):
        lines.append(encode_line(event))
        if plan.noise and rng.random() < 0.3:
            lines.append(
                rng.choice(
                    [lines[rng.randrange(len(lines))], b"{oops", b"", b'{"type":"feedback","id":"unknown","truth":1}']
                )
            )
    return b"\n".join(lines) + b"\n" * (plan.seed % 2)


def printed(decisions: Sequence[Decision]) -> bytes:
    return b"".join(decision_bytes(decision) + b"\n" for decision in decisions)


def replayed(config: Config, recording: bytes, batch: int = 4_096) -> tuple[bytes, dict[str, int]]:
    replay = Replay(config)
    data = printed(list(replay.decisions(io.BytesIO(recording), batch)))
    return data, replay.counts()


def alarmed(output: bytes) -> bool:
    return any(msgspec.json.decode(line)["verdict"] == "DEGRADED" for line in output.splitlines())


@settings(max_examples=some_of(12))
@given(plan=plans, batch=st.sampled_from([1, 2, 7, 100, 1_000_000]))
def test_same_recording_gives_the_same_bytes_twice_and_for_every_batch(plan: Plan, batch: int) -> None:
    config, recording = config_of(plan), recording_of(plan)
    first = replayed(config, recording)
    assert replayed(config, recording) == first
    assert replayed(config, recording, batch) == first


@settings(max_examples=some_of(12))
@given(plan=plans, stops=st.lists(st.floats(0, 1.1), min_size=1, max_size=4), batch=st.sampled_from([3, 4_096]))
def test_any_chain_of_stops_gives_the_bytes_of_one_run(plan: Plan, stops: list[float], batch: int) -> None:
    config, recording = config_of(plan), recording_of(plan)
    expected, counts = replayed(config, recording)
    total = len(recording.splitlines())
    snapshot, found = None, b""
    for stop in sorted(int(share * total) for share in stops):
        replay = Replay(config, snapshot)
        # A stop behind the end is the end: nothing is left to resume then.
        found += printed(list(replay.decisions(io.BytesIO(recording), batch, min(stop, total))))
        snapshot = replay.save()
    last = Replay(config, snapshot)
    found += printed(list(last.decisions(io.BytesIO(recording), batch)))
    assert found == expected
    assert last.counts() == counts


AT_ONCE = msgspec.structs.replace(EVERYTHING, mature_after_s=0, beside="shadow")
BAD_NEWS = msgspec.structs.replace(EVERYTHING, beside="shadow", negative=True, latency="beside")
SPEED = msgspec.structs.replace(AT_ONCE, latency="alone")
UNITS = msgspec.structs.replace(EVERYTHING, units=11)
CHAINED = {
    "maturing": EVERYTHING,
    "at once": AT_ONCE,
    "bad news and speed": BAD_NEWS,
    "speed at once": SPEED,
    "units": UNITS,
}


@pytest.mark.parametrize("plan", CHAINED.values(), ids=CHAINED)
def test_stop_after_every_line_resumes_to_the_same_bytes(plan: Plan) -> None:
    """Every stopping point of one recording, in one chain: a snapshot after each line."""
    plan = msgspec.structs.replace(plan, lines=120)
    config, recording = config_of(plan), recording_of(plan)
    expected, counts = replayed(config, recording)
    assert alarmed(expected)
    snapshot, found = None, b""
    for stop in range(0, len(recording.splitlines()) + 1):
        replay = Replay(config, snapshot)
        found += printed(list(replay.decisions(io.BytesIO(recording), stop_after=stop)))
        snapshot = replay.save()
    last = Replay(config, snapshot)
    found += printed(list(last.decisions(io.BytesIO(recording))))
    assert found == expected
    assert last.counts() == counts


@pytest.mark.parametrize("deciding", ["adwin", "page_hinkley"])
def test_deciding_detector_of_another_kind_survives_every_stop(deciding: str) -> None:
    """It takes more outcomes than there are between two stops to see the decay."""
    plan = Plan(3, 0, 400, "act", "holdback", False, 1, deciding, False, False)
    config, recording = config_of(plan), recording_of(plan)
    expected, _ = replayed(config, recording)
    assert alarmed(expected)
    snapshot, found = None, b""
    for stop in range(15, len(recording.splitlines()) + 15, 15):
        replay = Replay(config, snapshot)
        found += printed(list(replay.decisions(io.BytesIO(recording), stop_after=stop)))
        snapshot = replay.save()
    assert found == expected


RECORD = Plan(5, 0, 300, "act", "none", True, 3, "e_detector", False, False, before=800, without_control="act")
SHIFT = Plan(
    6, 5, 1_500, "act", "none", False, 1, "e_detector", False, False, labelled_after=0.4, reference=0.25, decay=0.1
)
IMPLAUSIBLE = Plan(8, 0, 1_300, "observe", "none", False, 1, "e_detector", False, False, reference=0.9, decay=0.1)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (RECORD, "RECORD_BETTER"),
        (msgspec.structs.replace(RECORD, mature_after_s=5, without_control="propose"), "RECORD_BETTER"),
        (SHIFT, "COVERAGE_SHIFT"),
        (IMPLAUSIBLE, "REFERENCE_IMPLAUSIBLE"),
        (UNITS, "FEW_UNITS"),
        (msgspec.structs.replace(UNITS, mature_after_s=0), "FEW_UNITS"),
        (msgspec.structs.replace(UNITS, negative=True, latency="beside"), "FEW_UNITS"),
    ],
    ids=["record", "matured record", "coverage", "reference", "units", "units at once", "units of bad news"],
)
def test_what_is_remembered_across_versions_and_shifts_survives_every_batch_and_stop(plan: Plan, told: str) -> None:
    config, recording = config_of(plan), recording_of(plan)
    expected, counts = replayed(config, recording)
    assert told in counts or told.encode() in expected, (expected, counts)
    assert replayed(config, recording, 7) == (expected, counts)
    snapshot, found = None, b""
    for stop in range(37, len(recording.splitlines()) + 37, 37):
        replay = Replay(config, snapshot)
        found += printed(list(replay.decisions(io.BytesIO(recording), stop_after=stop)))
        snapshot = replay.save()
    last = Replay(config, snapshot)
    found += printed(list(last.decisions(io.BytesIO(recording))))
    assert found == expected
    assert last.counts() == counts


def test_shift_of_the_labels_is_told_once_and_then_the_new_share_is_usual() -> None:
    output, _ = replayed(config_of(SHIFT), recording_of(SHIFT))
    told = [msgspec.json.decode(line)["reason"] for line in output.splitlines()]
    shifted = told.index("COVERAGE_SHIFT")
    assert told.count("COVERAGE_SHIFT") == 1
    # It is judged afresh, and the recording ends before 500 outcomes were.
    assert told[shifted + 1 :] == ["LEARNING"], told


def test_recordings_of_this_module_lead_to_decisions_of_many_kinds() -> None:
    """The properties above would say nothing of recordings in which nothing happens."""
    degraded, reasons = 0, Counter[str]()
    for seed in range(36):
        plan = Plan(
            seed=seed,
            mature_after_s=(0, 5, 20)[seed % 3],
            lines=500,
            mode=("act", "approve", "observe")[seed // 3 % 3],
            beside=("holdback", "shadow", "none", "holdback")[seed % 4],
            slices=seed % 2 == 0,
            sources=(1, 3)[seed // 2 % 2],
            deciding=("e_detector", "e_detector", "page_hinkley", "adwin")[seed // 9],
            noise=seed % 5 == 0,
            acts=seed % 6 == 0,
            negative=seed % 4 == 3,
            latency=("none", "beside", "alone", "first", "none")[seed % 5],
        )
        output, _ = replayed(config_of(plan), recording_of(plan))
        degraded += alarmed(output)
        reasons.update(msgspec.json.decode(line)["reason"] for line in output.splitlines())
    assert degraded >= 24, reasons
    assert {"TARGET_BETTER", "TARGET_UNKNOWN", "CONFIRMING"} <= set(reasons), reasons


@pytest.mark.parametrize("deciding", ["e_detector", "adwin", "page_hinkley"])
def test_more_slices_than_the_cap_never_stop_the_fold(deciding: str) -> None:
    """Values beyond the cap share a stream without a share in the alarm, whichever detector decides."""
    plan = msgspec.structs.replace(EVERYTHING, lines=800, deciding=deciding, mode="observe")
    output, _ = replayed(config_of(plan), recording_of(plan))
    assert alarmed(output)


def test_each_decision_names_the_digest_of_the_one_before() -> None:
    plan = msgspec.structs.replace(EVERYTHING, mode="approve", acts=True)
    output, _ = replayed(config_of(plan), recording_of(plan))
    assert len(output.splitlines()) > 2
    previous = ""
    for line in output.splitlines():
        assert msgspec.json.decode(line)["digests"]["previous"] == previous
        previous = digest_of(line)
    assert previous


def test_epochs_and_times_of_decisions_never_fall() -> None:
    plan = msgspec.structs.replace(EVERYTHING, mode="approve", acts=True)
    output, _ = replayed(config_of(plan), recording_of(plan))
    decisions = [msgspec.json.decode(line) for line in output.splitlines()]
    assert len(decisions) > 2
    assert sorted(decisions, key=lambda d: (d["epoch"], d["ts"])) == decisions
    assert len({tuple(d["epoch"]) for d in decisions}) == len(decisions)


def test_advancing_after_the_end_gives_the_same_bytes_after_a_stop() -> None:
    # A proposal that nobody answers lapses and is made again, by the passing of time alone.
    plan = msgspec.structs.replace(EVERYTHING, mode="approve")
    config, recording = config_of(plan), recording_of(plan)
    until = START + 120_000

    def run(replay: Replay) -> bytes:
        return printed([*replay.decisions(io.BytesIO(recording)), *replay.advance(until)])

    expected = run(Replay(config))
    first = Replay(config)
    found = printed(list(first.decisions(io.BytesIO(recording), stop_after=200)))
    assert found + run(Replay(config, first.save())) == expected
    assert len(expected) > len(replayed(config, recording)[0])


# Snapshots


def snapshot_after(line: int, plan: Plan = EVERYTHING) -> bytes:
    replay = Replay(config_of(plan))
    list(replay.decisions(io.BytesIO(recording_of(plan)), stop_after=line))
    return replay.save()


def test_same_stop_gives_the_same_snapshot() -> None:
    assert snapshot_after(150) == snapshot_after(150)
    again = Replay(config_of(EVERYTHING), snapshot_after(150))
    assert list(again.decisions(io.BytesIO(recording_of(EVERYTHING)), stop_after=150)) == []
    assert again.save() == snapshot_after(150)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=some_of(200))
def test_snapshot_with_any_flipped_bit_is_refused(place: float, bit: int) -> None:
    data = bytearray(SNAPSHOT)
    data[int(place * len(data))] ^= 1 << bit
    with pytest.raises(SnapshotError):
        Replay(CONFIG, bytes(data))


@given(length=st.floats(0, 1, exclude_max=True))
@settings(max_examples=some_of(50))
def test_snapshot_that_was_cut_short_is_refused(length: float) -> None:
    with pytest.raises(SnapshotError):
        Replay(CONFIG, SNAPSHOT[: int(length * len(SNAPSHOT))])


def test_snapshot_with_more_behind_it_is_refused() -> None:
    with pytest.raises(SnapshotError):
        Replay(CONFIG, SNAPSHOT + b"\x00")


@pytest.mark.parametrize("data", [b"", b"{}", b"unship-snapshot-1\n", b"unship-snapshot-1\n" + bytes(32)])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        Replay(CONFIG, data)


@pytest.mark.parametrize("change", ["flip", "drop", "insert", "short", "empty"])
def test_snapshot_of_another_recording_is_refused(change: str) -> None:
    lines = recording_of(EVERYTHING).splitlines(keepends=True)
    if change == "flip":
        lines[70] = (
            lines[70].replace(b'"m"', b'"n"').replace(b"unknown", b"Unknown").replace(b"oops", b"Oops") or b" \n"
        )
        lines[70] = b" \n" if lines[70] == recording_of(EVERYTHING).splitlines(keepends=True)[70] else lines[70]
    elif change == "drop":
        del lines[3]
    elif change == "insert":
        lines.insert(0, b"\n")
    else:
        del lines[{"short": 100, "empty": 0}[change] :]
    replay = Replay(CONFIG, SNAPSHOT)
    with pytest.raises(SnapshotError, match="150 lines of another recording"):
        list(replay.decisions(io.BytesIO(b"".join(lines))))


def test_change_of_the_recording_behind_the_stop_is_not_the_snapshots_business() -> None:
    lines = recording_of(EVERYTHING).splitlines(keepends=True)
    lines[160:] = [b"{oops\n"] * 5
    replay = Replay(CONFIG, SNAPSHOT)
    list(replay.decisions(io.BytesIO(b"".join(lines))))
    assert replay.lines == 165


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models: {m: {one_false_alarm_per: 200}}",
        "models: {m: {worse_by: 0.01}}",
        "fleet: {max_simultaneous: 4}",
    ],
)
def test_snapshot_of_another_configuration_is_refused(text: str) -> None:
    with pytest.raises(SnapshotError, match="configuration"):
        Replay(parse(text), SNAPSHOT)


def test_place_of_log_and_keys_is_no_part_of_the_configuration_that_must_agree() -> None:
    elsewhere = msgspec.structs.replace(CONFIG, log="embedded:/elsewhere", keys="/other")
    found = printed(list(Replay(elsewhere, SNAPSHOT).decisions(io.BytesIO(recording_of(EVERYTHING)))))
    expected = printed(list(Replay(CONFIG, SNAPSHOT).decisions(io.BytesIO(recording_of(EVERYTHING)))))
    assert found == expected


CONFIG = config_of(EVERYTHING)
SNAPSHOT = snapshot_after(150)
