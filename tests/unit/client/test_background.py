from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from dxos.client.background import BackgroundBlock
from dxos.errors import ClosedError, LinkError, StorageFullError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {}


class Block:
    """A block that can fail at each of its three places."""

    def __init__(self, *, entering: Exception | None = None, leaving: Exception | None = None) -> None:
        self.entering, self.leaving, self.failing = entering, leaving, anyio.Event()
        self.steps: list[str] = []
        self.failures: list[Exception] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        await anyio.lowlevel.checkpoint()
        if self.entering is not None:
            raise self.entering
        self.steps.append("entered")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._fail)
                yield "value"
                tasks.cancel_scope.cancel()
            if self.leaving is not None:
                raise self.leaving
        finally:
            self.steps.append("left")

    async def _fail(self) -> None:
        await self.failing.wait()
        raise LinkError("the host went away")


async def test_a_block_is_open_between_open_and_close() -> None:
    block = Block()
    background = BackgroundBlock(block, block.failures.append)
    assert await background.open() == "value"
    assert block.steps == ["entered"]
    await background.close()
    await background.close()
    assert block.steps == ["entered", "left"]
    assert block.failures == []


async def test_an_error_of_entering_is_raised_by_open() -> None:
    block = Block(entering=StorageFullError("full"))
    with pytest.raises(StorageFullError):
        await BackgroundBlock(block, block.failures.append).open()
    assert block.failures == []


async def test_an_error_of_leaving_is_raised_by_close_once() -> None:
    block = Block(leaving=StorageFullError("full"))
    background = BackgroundBlock(block, block.failures.append)
    await background.open()
    with pytest.raises(StorageFullError):
        await background.close()
    await background.close()


async def test_an_error_in_between_is_told_by_itself_and_not_in_a_group() -> None:
    block, told, failures = Block(), anyio.Event(), list[Exception]()

    def failed(error: Exception) -> None:
        failures.append(error)
        told.set()

    background = BackgroundBlock(block, failed)
    await background.open()
    block.failing.set()
    await told.wait()
    assert [type(one) for one in failures] == [LinkError]
    await background.close()


async def test_a_block_that_ends_by_itself_has_failed() -> None:
    told, failures = anyio.Event(), list[Exception]()

    @asynccontextmanager
    async def short() -> AsyncIterator[None]:
        with anyio.CancelScope() as scope:
            scope.cancel()
            yield

    def failed(error: Exception) -> None:
        failures.append(error)
        told.set()

    background = BackgroundBlock(short, failed)
    await background.open()
    await told.wait()
    assert [type(one) for one in failures] == [ClosedError]


async def test_a_cancelled_close_waits_for_the_end() -> None:
    block = Block()
    background = BackgroundBlock(block, block.failures.append)
    await background.open()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await background.close()
    assert block.steps == ["entered", "left"]
    assert block.failures == []
