"""Run the label sources of the demo: a process that reports truths when they become known."""

from __future__ import annotations

from console.census.scenarios import MODEL
from console.demo.messages import Begin, DemoClock, Reported, Truths, messages, read_begin, send
from console.demo.replica import FLUSH_S
from unship import Feedback


def report(begin: Begin) -> None:
    """Report truths until the pipe ends."""
    clock = DemoClock(begin.now)
    with Feedback(begin.log, model=MODEL, now_ms=clock) as feedback:
        for truths in messages(Truths):
            clock.set(truths.now)
            for id_, truth, source, ts in zip(truths.id, truths.truth, truths.source, truths.ts, strict=True):
                feedback.truth(id_, truth, source=source, ts=ts)
            written = feedback.flush(FLUSH_S)
            stats = feedback.stats
            send(
                Reported(
                    stats.dropped, stats.detail if written else f"not written within {FLUSH_S:.0f} s: {stats.detail}"
                )
            )


if __name__ == "__main__":
    report(read_begin())
