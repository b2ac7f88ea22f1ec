"""Async tests run on trio with a clock that jumps to the next deadline whenever every task waits."""

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, MockClock]]:
    """A test that opens real sockets or processes overrides this with `"asyncio"`."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}
