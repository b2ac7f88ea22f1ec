"""The host's side of sessions: what one client does costs nobody else anything."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dxos.aio import Listeners
from dxos.client import Client
from dxos.client.space import Space
from dxos.echo.rows import ObjectRow
from dxos.keys.ids import make_object_id
from dxos.limits import SESSION_PIECE_BYTES, SESSION_QUEUE_BYTES_MAX, SESSION_READING_MAX
from dxos.mesh.memory import memory_links
from dxos.services.contract import Next, ObjectState, Services, SpaceArchive, Subscription
from dxos.services.methods import methods_of
from dxos.services.port import VALUE, Port
from dxos.services.server import serve
from dxos.testing.peers import Simulation, until
from dxos.testing.remote import OpenServices, ServedServices
from dxos.wire import encode
from dxos.wire.proto import rpc_pb2, values_pb2

pytestmark = pytest.mark.anyio


async def long_archive(client: Client) -> tuple[Space, SpaceArchive]:
    await client.halo.create_identity("alice")
    space = await client.create_space()
    space.db.add({"text": random.Random(1).randbytes(8 * SESSION_PIECE_BYTES).hex()})
    await space.db.flush()
    return space, await space.export_archive()


# --- Long arguments ---------------------------------------------------------------------------------------------------


async def test_calls_are_made_while_long_arguments_of_another_one_are_under_way() -> None:
    served = ServedServices(Simulation().services())
    async with Client(services=served) as client:
        space, archive = await long_archive(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.spaces.import_archive, archive)
            for number in range(20):
                space.db.add({"number": number})
                await space.db.flush()
        assert await space.db.query().count() == 20 + 2
        assert len(client.spaces) == 2
        assert served.sessions_count == 1


async def test_long_arguments_whose_call_was_cancelled_are_no_part_of_the_next_call() -> None:
    served = ServedServices(Simulation().services())
    async with Client(services=served) as client:
        space, archive = await long_archive(client)
        for turns in (10, 20, 30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.spaces.import_archive, archive)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert len(client.spaces) == 1, "cancelled before it began"
        copy = await client.spaces.import_archive(archive)
        assert len(await copy.db.query().run()) == len(await space.db.query().run())
        assert served.sessions_count == 1


# --- Long answers -----------------------------------------------------------------------------------------------------


class Host:
    """Open services, with the data service replaced."""

    def __init__(self, services: Services, data: Any) -> None:
        self._services, self.data = services, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._services, name)


class Archive:
    """A data service with objects that are long, and a stream of them."""

    def __init__(self, *, count: int, chars: int) -> None:
        self.states = [state(number, "x" * chars) for number in range(count)]
        self.listeners: Listeners[tuple[ObjectState, ...]] = Listeners()

    async def get(self, space_id: str, object_ids: tuple[str, ...]) -> tuple[ObjectState, ...]:
        await anyio.lowlevel.checkpoint()
        return tuple(self.states)

    def subscribe(
        self, space_id: str, next: Next[tuple[ObjectState, ...]], *, missed: Callable[[], None] | None = None
    ) -> Subscription:
        return self.listeners.subscribe(next)

    def forget(self, client_id: str) -> None:
        pass


def state(number: int, text: str) -> ObjectState:
    return ObjectState(ObjectRow(make_object_id(number, bytes(10)), data={"text": text}), number, ())


async def test_an_answer_may_be_longer_than_all_that_may_wait_for_a_client() -> None:
    archive = Archive(count=260, chars=350 * 1024)
    assert SESSION_QUEUE_BYTES_MAX < 200 * 350 * 1024
    async with Simulation().services() as services:
        served = ServedServices(OpenServices(Host(services, archive)))
        async with served as remote:
            assert [one.version for one in await remote.data.get("B", ())] == list(range(260))
            assert served.sessions_count == 1


async def test_what_is_too_long_to_be_told_ends_that_session_so_that_the_client_catches_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dxos.teleport.rpc.PAYLOAD_BYTES_MAX", 100_000)
    archive = Archive(count=1, chars=200_000)
    async with Simulation().services() as services:
        others, served = (
            ServedServices(OpenServices(Host(services, archive)), client_id=one) for one in ("bob", "alice")
        )
        async with others, served as remote:
            heard: list[str] = []
            remote.data.subscribe("B", lambda states: heard.append("changed"), missed=lambda: heard.append("missed"))
            await until(lambda: len(archive.listeners) == 1)
            archive.listeners.emit(tuple(archive.states))
            await until(lambda: heard == ["missed"])
            archive.listeners.emit((state(1, "short"),))
            await until(lambda: heard == ["missed", "changed"])
            assert (others.sessions_count, served.sessions_count) == (1, 2)
    assert "The session of client alice is ended: A message is too long." in caplog.text


# --- Fairness ---------------------------------------------------------------------------------------------------------


class Work:
    """A data service whose reading takes three turns of the event loop, and whose flushing takes long."""

    def __init__(self) -> None:
        self.reading = self.reading_max = 0
        self.done: list[str] = []
        self.flushed = anyio.Event()

    async def get(self, space_id: str, object_ids: tuple[str, ...]) -> tuple[ObjectState, ...]:
        self.reading += 1
        self.reading_max = max(self.reading, self.reading_max)
        try:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
        finally:
            self.reading -= 1
        self.done.append(space_id)
        return ()

    async def flush(self, space_id: str) -> None:
        await self.flushed.wait()

    def forget(self, client_id: str) -> None:
        pass


async def test_who_asks_for_much_at_once_does_not_make_others_wait_for_all_of_it() -> None:
    work = Work()
    async with Simulation().services() as services:
        busy, other = (ServedServices(OpenServices(Host(services, work)), client_id=one) for one in ("busy", "other"))
        async with busy as much, other as little, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(much.data.flush, "B")  # What waits keeps nothing back.
            for _ in range(100):
                tasks.start_soon(much.data.get, "busy", ())
            tasks.start_soon(little.data.get, "other", ())
            await until(lambda: len(work.done) == 101)
            assert work.done.index("other") < 30
            assert work.reading_max == SESSION_READING_MAX + 1
            work.flushed.set()


# --- Who breaks the rules ---------------------------------------------------------------------------------------------


def frame(message: rpc_pb2.RpcMessage) -> bytes:
    encoded = encode(message)
    return len(encoded).to_bytes(4, "big") + encoded


def request(number: int, method: str, content: bytes) -> bytes:
    payload = values_pb2.Any(type_url=VALUE, value=content)
    return frame(rpc_pb2.RpcMessage(request=rpc_pb2.Request(id=number, method=method, payload=payload, stream=True)))


STATUS = "dxos.client.services.SystemService.QueryStatus"
FOREIGN = {
    "bytes that are no frames": (b"\xff" * 64, "too long"),
    "arguments that do not parse": (request(1, STATUS, b"\xc1"), "does not parse"),
    "two calls with one number": (
        2 * request(1, STATUS, methods_of("system")["query_status"].arguments.pack(())),
        "number",
    ),
    "too many streams": (
        b"".join(request(one, STATUS, methods_of("system")["query_status"].arguments.pack(())) for one in range(101)),
        "Too many",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
async def test_who_breaks_the_rules_loses_its_session_and_nobody_else_notices(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dxos.services.port.SESSION_CALLS_MAX", 100)
    content, reason = FOREIGN[what]
    async with Simulation().services() as services:
        others = ServedServices(OpenServices(services), client_id="others")
        async with others as remote, anyio.create_task_group() as tasks:
            ours, theirs = memory_links()
            tasks.start_soon(partial(serve, services, theirs, client_id="foreign"))
            await ours.send(content)
            with suppress(anyio.EndOfStream):
                while True:
                    await ours.receive()
            await remote.system.get_platform()
            assert others.sessions_count == 1
    (said,) = (one.getMessage() for one in caplog.records if "foreign" in one.getMessage())
    assert said.startswith("The session of client foreign was ended: ")
    assert reason in said


async def test_a_client_that_reads_nothing_costs_a_bounded_queue_and_then_its_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    archive, limit = Archive(count=1, chars=10_000), 100_000
    async with Simulation().services() as services:
        host: Any = Host(services, archive)
        async with anyio.create_task_group() as tasks:
            monkeypatch.setattr("dxos.services.server.Port", partial(Port, queue_bytes_max=limit))
            ours, theirs = memory_links(buffer_bytes_max=1_000)
            tasks.start_soon(partial(serve, host, theirs, client_id="asleep"))
            subscribe = methods_of("data")["subscribe"]
            await ours.send(request(1, subscribe.name, subscribe.arguments.pack(("B",))))
            await until(lambda: len(archive.listeners) == 1)
            told = 0
            while len(archive.listeners):
                archive.listeners.emit((state(1, "x" * 10_000),))
                told += 1
                await anyio.lowlevel.checkpoint()
            assert limit // 10_000 <= told <= limit // 10_000 + 5
            tasks.cancel_scope.cancel()
    assert "The session of client asleep is ended: The other side of this session does not read" in caplog.text
