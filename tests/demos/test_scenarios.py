"""Every scenario of the demo ends as it is named: in one process, on the same rows and under the same clock.

Versions answer as if nobody ever obeyed; what follows from obeying is tested with processes (`test_demo.py`).
"""

from io import BytesIO

import msgspec
import orjson
import pytest

from actions.journal import decision_bytes
from console.census import config_yaml, make_recording
from console.demo.course import ROUND_MS
from streams.config.parse import parse
from streams.recordings.replay import Replay
from tests.demos import ENDS, wrong

TOPICS = {"prediction": "predictions", "feedback": "feedback", "deployment": "deployments"}


def appended(lines: list[bytes]) -> BytesIO:
    """Return the lines as the demo's log would have stamped them: at the end of the round in which they came."""
    offsets = dict.fromkeys(TOPICS.values(), 0)
    stamped = []
    for line in lines:
        event = orjson.loads(line)
        topic = TOPICS[event["type"]]
        # Deployments are announced between two rounds.
        ts = event["ts"] if topic == "deployments" else -(-event["ts"] // ROUND_MS) * ROUND_MS
        stamped.append((ts, line[:-2] + b',"at":' + orjson.dumps([topic, 0, offsets[topic], ts]) + b"}\n"))
        offsets[topic] += 1
    return BytesIO(b"".join(line for _, line in sorted(stamped, key=lambda entry: entry[0])))


@pytest.mark.parametrize("name", ENDS)
def test_scenario_ends_as_it_is_named(name: str) -> None:
    end, out = ENDS[name], BytesIO()
    scenario = end.scenario or name
    make_recording(scenario, 1, out, end.holdback)
    replay = Replay(parse(config_yaml(scenario)))
    decisions = [
        msgspec.json.decode(decision_bytes(decision))
        for decision in replay.decisions(appended(out.getvalue().splitlines(keepends=True)))
    ]
    assert wrong(end, decisions) == []
