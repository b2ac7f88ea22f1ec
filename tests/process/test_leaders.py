"""The links of a worker to its leaders, while its event loop is busy."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from dxos.errors import DxosError
from dxos.limits import WORKER_PING_S
from dxos.worker import messages
from dxos.worker.leaders import Leaders
from dxos.worker.links import Deframer, frame
from dxos.worker.messages import Message, Ping, Pong

pytestmark = pytest.mark.timeout(30)


class Worker:
    """Links without a worker: what it would hear."""

    def __init__(self, **options: float) -> None:
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.errors: asyncio.Queue[DxosError] = asyncio.Queue()
        self.links = Leaders(
            lambda _, message: self.heard.put_nowait(message),
            lambda _, error: self.errors.put_nowait(error),
            lambda loop, context: pytest.fail(str(context)),
            **options,
        )
        self.leader, theirs = socket.socketpair()
        self.leader.settimeout(5)
        self.number = self.links.add(theirs)

    def say(self, message: Message) -> None:
        self.leader.sendall(frame(messages.encode(message)))

    def answer(self) -> Message:
        """What the leader hears; waiting for it keeps the event loop busy."""
        ((message, _),) = Deframer().receive(self.leader.recv(4_096), [])
        return messages.decode(message)


@contextlib.contextmanager
def working(**options: float) -> Iterator[Worker]:
    worker = Worker(**options)
    try:
        yield worker
    finally:
        worker.links.release(worker.number)
        worker.links.stop()
        worker.leader.close()


def test_a_ping_is_answered_while_the_event_loop_is_busy() -> None:
    async def main() -> None:
        with working() as worker:
            await asyncio.sleep(0)
            time.sleep(1.2 * WORKER_PING_S)  # noqa: ASYNC251 - A long turn.
            worker.say(Ping(7))
            assert worker.answer() == Pong(7)
            assert worker.heard.empty()

    asyncio.run(main())


def test_a_ping_of_a_worker_that_is_not_busy_is_its_own_to_answer() -> None:
    async def main() -> None:
        with working() as worker:
            worker.say(Ping(1))
            assert await worker.heard.get() == Ping(1)
            worker.links.send(worker.number, Pong(1))
            assert worker.answer() == Pong(1)

    asyncio.run(main())


def test_an_event_loop_that_never_ends_its_turn_answers_no_more() -> None:
    async def main() -> None:
        with working(busy_s_max=0.6) as worker:
            await asyncio.sleep(0)
            time.sleep(0.8)  # noqa: ASYNC251
            worker.say(Ping(7))
            worker.leader.settimeout(0.1)
            with pytest.raises(TimeoutError):
                worker.answer()

    asyncio.run(main())


def test_a_leader_that_makes_no_sense_ends_its_link_once() -> None:
    async def main() -> None:
        with working() as worker:
            worker.leader.sendall(frame(b"nonsense"))
            assert isinstance(await worker.errors.get(), DxosError)
            await asyncio.sleep(0.01)
            assert worker.errors.empty()

    asyncio.run(main())
