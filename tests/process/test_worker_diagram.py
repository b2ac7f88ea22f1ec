"""The messages of start-up, self-connection and second connection, compared with the diagram of the design."""

import sys
from pathlib import Path

import pytest

from dxos.worker.messages import Message, Ping, Pong, name_of
from dxos.worker.provider import WorkerServices

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX"),
]

# C1 is the first client, which leads; the coordinator and the leader are in its process.
START = [
    ("C1", "coordinator", "hello"),  # Connect.
    ("coordinator", "C1", "welcome"),
    ("worker", "leader", "listening"),
    ("leader", "worker", "init"),
    ("worker", "leader", "ready"),
    ("leader", "coordinator", "new-leader"),
    ("coordinator", "C1", "new-leader"),
]
SELF_CONNECTION = [
    ("C1", "coordinator", "request-port"),
    ("coordinator", "leader", "request-port"),
    ("leader", "worker", "start-session"),
    ("worker", "leader", "session"),
    ("leader", "coordinator", "provide-port"),
    ("coordinator", "C1", "provide-port"),
]
SECOND_CONNECTION = [
    ("C2", "coordinator", "hello"),
    ("coordinator", "C2", "welcome"),
    ("C2", "coordinator", "request-port"),
    ("coordinator", "leader", "request-port"),
    ("leader", "worker", "start-session"),
    ("worker", "leader", "session"),
    ("leader", "coordinator", "provide-port"),
    ("coordinator", "C2", "provide-port"),
]


async def test_the_messages_are_those_of_the_diagram_in_its_order(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    def services(name: str) -> WorkerServices:
        def trace(sender: str, receiver: str, message: Message) -> None:
            if not isinstance(message, Ping | Pong):
                who = {"client": name}
                seen.append((who.get(sender, sender), who.get(receiver, receiver), name_of(type(message))))

        return WorkerServices(tmp_path, trace=trace)

    async with services("C1"):
        assert seen == START + SELF_CONNECTION
        seen.clear()
        async with services("C2"):
            assert seen == SECOND_CONNECTION


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
