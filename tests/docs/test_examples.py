"""The programs and commands that the documentation shows, as a reader would run them."""

import ast
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

import dxos
from dxos import Client
from dxos.cli.main import app
from dxos.mesh.signal_server import serve_signal

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
README, TUTORIAL, REFERENCE = ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "python.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PORT = "5001"
LINE_S_MAX, JOIN_S_MAX = 30.0, 30.0
TRACKER_LINES_MAX = 75
LINE_BYTES_MAX = 64 * 1024
RUNNABLE = re.compile(r"<!-- runnable(?:: ([\w.]+))? -->\n```python\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def programs(page: Path) -> dict[str, str]:
    """The programs of a page that can be run as they are, by their file names."""
    found = {name or "program.py": code for name, code in RUNNABLE.findall(page.read_text(encoding="utf-8"))}
    assert found, f"{page.name} has programs that can be run"
    return found


def dx_commands(page: Path) -> list[str]:
    lines = "\n".join(SHELL.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    return [line for line in (one.split("  #")[0].strip() for one in lines) if re.match(r"(\w+=\S+ )*dx ", line)]


@asynccontextmanager
async def signal_server() -> AsyncIterator[int]:
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(serve_signal, "127.0.0.1", 0)
        tasks.cancel_scope.cancel()


class Program:
    """A program of the documentation in a process of its own."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdout is not None
        self._process, self._output = process, BufferedByteReceiveStream(process.stdout)

    async def line(self) -> str:
        with anyio.fail_after(LINE_S_MAX):
            return (await self._output.receive_until(b"\n", LINE_BYTES_MAX)).decode()

    async def lines_until_end(self) -> list[str]:
        lines = []
        try:
            while True:
                lines.append(await self.line())
        except (anyio.IncompleteRead, anyio.EndOfStream):
            pass
        with anyio.fail_after(LINE_S_MAX):
            assert await self._process.wait() == 0
        return lines


def written(folder: Path, code: str, port: int | None) -> Path:
    """The file of a program that uses the test's signalling server, or none."""
    assert (PORT in code) is (port is not None), "the program names the usual signalling server"
    path = folder / f"program{len(list(folder.glob('program*.py')))}.py"
    path.write_text(code.replace(PORT, str(port)), encoding="utf-8")
    return path


@asynccontextmanager
async def running(folder: Path, code: str, port: int | None = None, *arguments: str) -> AsyncIterator[Program]:
    sources = os.pathsep.join((str(Path(dxos.__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": sources, "PYTHONUNBUFFERED": "1"}
    process = await anyio.open_process(
        [sys.executable, str(written(folder, code, port)), *arguments], cwd=folder, stderr=None, env=environment
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def test_the_program_of_the_readme_runs_as_written_and_admits_a_guest(tmp_path: Path) -> None:
    code = programs(README)["program.py"]
    async with signal_server() as port, running(tmp_path, code, port) as alice:
        assert await alice.line() == "Milk"
        invitation, auth_code = (await alice.line()).split()
        settings = {"runtime": {"services": {"signaling": [{"server": f"ws://127.0.0.1:{port}/"}]}}}
        async with Client(settings) as client:
            await client.halo.create_identity(display_name="Bob")
            guest = client.accept_invitation(invitation)
            with anyio.fail_after(JOIN_S_MAX):
                await guest.authenticate(auth_code)
                joined = await guest
        assert joined.space_key is not None
        assert await alice.lines_until_end() == []


async def test_the_task_tracker_of_the_tutorial_runs_as_two_people(tmp_path: Path) -> None:
    code = programs(TUTORIAL)["tracker.py"]
    assert len(code.splitlines()) <= TRACKER_LINES_MAX, "the tutorial says all of it on one page"
    async with signal_server() as port, running(tmp_path, code, port, "Alice") as alice:
        python, file, *bobs_words = (await alice.line()).split()
        assert (python, file) == ("python", "tracker.py")
        async with running(tmp_path, code, port, *bobs_words) as bob:
            assert await bob.lines_until_end() == [
                "done: Paint the kitchen ['loud'] for Bob",
                "done: Pack the books [] for Bob",
            ]
            shown = await alice.lines_until_end()
    lists = [one for one in shown if one.startswith("to do: ")]
    assert lists[0] == "to do: Paint the kitchen, Call the bank, Pack the books"
    assert lists[-1] == "to do: nothing"
    undone, burnt, noted = shown[len(lists) :]
    assert undone.endswith("title: 'Burn the books' → 'Pack the books'")
    assert burnt.endswith("title: 'Pack the books' → 'Burn the books'")
    assert noted.endswith("Sixty boxes. Heavy ones at the bottom.'")


async def test_two_programs_and_a_notebook_of_the_tutorial_share_a_profile(tmp_path: Path) -> None:
    code = programs(TUTORIAL)
    async with running(tmp_path, code["board.py"]) as board:
        assert await board.line() == "to do: "
        async with running(tmp_path, code["todo.py"], None, "Milk", "Bread") as todo:
            assert await todo.lines_until_end() == []
        assert await board.line() == "to do: Bread, Milk"
        async with running(tmp_path, code["notebook.py"]) as notebook:
            assert await notebook.lines_until_end() == []
        assert await board.line() == "to do: Bread"


async def test_the_examples_of_the_reference_run_in_order() -> None:
    text = re.sub(r"<!-- fragment -->\n```python\n.*?```", "", REFERENCE.read_text(encoding="utf-8"), flags=re.DOTALL)
    examples = PYTHON.findall(text)
    assert len(examples) > 10
    namespace: dict[str, object] = {}
    with anyio.fail_after(LINE_S_MAX):
        for number, code in enumerate(examples, 1):
            compiled = compile(code, f"example {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(compiled, namespace)
            if waiting is not None:
                await waiting


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_example_parses(page: Path) -> None:
    for code in PYTHON.findall(page.read_text(encoding="utf-8")):
        # Fragments await where a program would be in a function.
        compile(code, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_dx_command_shown_exists_with_its_options(page: Path) -> None:
    import typer.main

    group = typer.main.get_command(app)
    for line in dx_commands(page):
        words = shlex.split(line)
        words = words[words.index("dx") + 1 :]
        command, context = group, typer.Context(group, info_name="dx")
        while words:
            options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
            word = words.pop(0)
            if word.startswith("-"):
                assert word in options or word in ("--help", "-h"), f"{line}: {word} is no option"
                if word in options and not getattr(options[word], "is_flag", False) and words:
                    words.pop(0)
            elif hasattr(command, "get_command"):
                found = command.get_command(context, word)
                assert found is not None, f"{line}: there is no {word}"
                command = found
            else:
                continue  # An argument's value.
        assert not hasattr(command, "get_command") or "--help" in line or line.split()[-1] == "--show-completion", line
