"""Async tests run on trio with a clock that jumps to the next deadline whenever every task waits."""

import os
from collections.abc import Iterator

import pytest
from trio.testing import MockClock

# A command that a test runs leaves no process behind, except where that is what is tested.
os.environ["DX_NO_AGENT"] = "1"


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
