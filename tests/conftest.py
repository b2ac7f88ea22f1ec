"""Async tests run on trio with a clock that jumps to the next deadline whenever every task waits."""

from collections.abc import Iterator

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, MockClock]]:
    """A test that opens real sockets or processes overrides this with `"asyncio"`."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def no_bug_is_hidden(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The network survives a bug in one connection, and the test in which that happens does not."""
    yield
    bugs = [one.getMessage() for one in caplog.get_records("call") if one.name == "dxos.mesh.network" and one.exc_info]
    assert not bugs
