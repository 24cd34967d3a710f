"""A client of a broker may end in any way; whoever throws it away goes on."""

import asyncio

import pytest

from unship.log.kafka.loop import KafkaLoop


async def cancelled() -> None:
    """End as aiokafka's consumer does when it cancels the fetch that it waits for."""
    fetch = asyncio.ensure_future(asyncio.sleep(60.0))
    await asyncio.sleep(0)
    fetch.cancel()
    await fetch


async def broken() -> None:
    raise OSError("connection reset")


async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("stop", [cancelled, broken, stuck])
def test_client_that_does_not_stop_in_order_is_let_go_and_the_next_is_stopped(stop):
    stopped: list[str] = []

    async def healthy() -> None:
        stopped.append("healthy")

    KafkaLoop("kafka://127.0.0.1:9092").end(stop, healthy)
    assert stopped == ["healthy"]
