import io
import os
from collections.abc import Iterator
from typing import TextIO

import anyio
import pytest

from dxos.cli.prompt import LineReader

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # A real pipe.


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, int]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as file:
        yield file, writing
        os.close(writing)


async def test_lines_are_read_one_by_one_however_they_arrive(pipe: tuple[TextIO, int]) -> None:
    file, writing = pipe
    reader = LineReader(file)
    os.write(writing, b"123456\r\n65")
    assert await reader.read() == "123456"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, os.write, writing, b"4321\nrest\n")
        assert await reader.read() == "654321"
    assert await reader.read() == "rest"


async def test_waiting_for_a_line_can_be_cancelled_and_loses_nothing(pipe: tuple[TextIO, int]) -> None:
    file, writing = pipe
    reader = LineReader(file)
    os.write(writing, b"12")
    with anyio.move_on_after(0.01) as scope:
        await reader.read()
    assert scope.cancelled_caught
    os.write(writing, b"34\n")
    assert await reader.read() == "1234"


async def test_the_end_of_input_is_none_after_the_last_line() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"12")
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as file:
        reader = LineReader(file)
        assert await reader.read() == "12"
        assert await reader.read() is None


async def test_text_that_is_no_file_is_read_too() -> None:
    reader = LineReader(io.StringIO("a\nb"))
    assert [await reader.read() for _ in range(3)] == ["a", "b", None]
