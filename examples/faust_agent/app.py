"""A Faust agent on unship's events: join predictions with their feedback, and watch each version with river's ADWIN.

UNSHIP_LOG=kafka://HOST:PORT python examples/faust_agent/app.py worker -l warn
"""

import os
from typing import Any

import faust
from river.drift import ADWIN

from unship.log.kafka.settings import topic_names

PREFIX = topic_names().prefix

app = faust.App(
    f"{PREFIX}faust-tutorial",
    broker=os.environ.get("UNSHIP_LOG", "kafka://127.0.0.1:9092"),
    # As many as the two topics have: a table is partitioned like the stream that fills it.
    topic_partitions=int(os.environ.get("PARTITIONS", "4")),
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    store="memory://",
    web_enabled=False,
)


class Prediction(faust.Record):
    """What this agent reads of a prediction; the event has more fields."""

    id: str
    model: str
    version: str
    output: Any


class Feedback(faust.Record):
    """What turned out to be true."""

    id: str
    truth: Any = None


predictions = app.topic(f"{PREFIX}predictions", key_type=bytes, value_type=Prediction, value_serializer="json")
feedback = app.topic(f"{PREFIX}feedback", key_type=bytes, value_type=Feedback, value_serializer="json")

# Both topics have the id as their key, so a prediction and its feedback come to the same worker. Either may come first.
unanswered = app.Table("unanswered")
early = app.Table("early")
detectors: dict[tuple[str, str], ADWIN] = {}
outcomes: dict[tuple[str, str], int] = {}


def judge(model: str, version: str, output: Any, truth: Any) -> None:
    """Step the detector of one version with one outcome, and print a line if it found a change."""
    key = model, version
    detector = detectors.setdefault(key, ADWIN())  # type: ignore[no-untyped-call]
    outcomes[key] = outcomes.get(key, 0) + 1
    before = detector.estimation
    detector.update(int(output != truth))  # type: ignore[no-untyped-call]
    if detector.drift_detected:
        print(
            f"{model} {version}: drift after {outcomes[key]} outcomes, "
            f"mean loss {before:.2f} before and {detector.estimation:.2f} now",
            flush=True,
        )


@app.agent(predictions)
async def on_prediction(stream: faust.StreamT[Prediction]) -> None:
    """Keep each prediction until its feedback comes."""
    async for event in stream:
        truth = early.pop(event.id, None)
        if truth is None:
            unanswered[event.id] = [event.model, event.version, event.output]
        else:
            judge(event.model, event.version, event.output, truth[0])


@app.agent(feedback)
async def on_feedback(stream: faust.StreamT[Feedback]) -> None:
    """Take the prediction out that this feedback answers."""
    async for event in stream:
        if event.truth is None:
            continue
        prediction = unanswered.pop(event.id, None)
        if prediction is None:
            early[event.id] = [event.truth]
        else:
            model, version, output = prediction
            judge(model, version, output, event.truth)


if __name__ == "__main__":
    app.main()
