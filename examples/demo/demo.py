"""Alice and Bob, each in a process of its own, share a space on this machine: what `make demo` runs.

Ends with exit code 0 if both have the same content, after a restart too. Uses the folder `demo-data`, wiped first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from dxos.aio import unwrap_group

HERE = Path(__file__).resolve().parent
DATA = Path("demo-data")
ANSWER_S_MAX = 30.0
STOP_S_MAX = 10.0
LINE_BYTES_MAX = 1024 * 1024
BEGUN = time.monotonic()


class DemoError(Exception):
    """A step did not do what it is there to show."""


class Child:
    """A process that prints JSON lines; what it logs is in a file beside its data."""

    def __init__(self, name: str, process: Process) -> None:
        assert process.stdout is not None
        self.name = name
        self._process, self._output = process, BufferedByteReceiveStream(process.stdout)

    @property
    def number(self) -> int:
        """The process id."""
        return self._process.pid

    async def read(self) -> Any:
        """The next line it prints."""
        try:
            with anyio.fail_after(ANSWER_S_MAX):
                return json.loads(await self._output.receive_until(b"\n", LINE_BYTES_MAX))
        except TimeoutError:
            raise DemoError(f"{self.name} did not answer within {ANSWER_S_MAX:.0f} s") from None
        except (anyio.IncompleteRead, anyio.EndOfStream):
            raise DemoError(f"{self.name} ended early; it said:\n{log_of(self.name)}") from None

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Have a peer do something, and wait for its answer."""
        assert self._process.stdin is not None
        # If it has ended, reading says so.
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._process.stdin.send(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self.read()

    async def stop(self) -> None:
        """End it in order: a peer ends with its input."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with anyio.move_on_after(STOP_S_MAX):
            if await self._process.wait() == 0:
                return
        raise DemoError(f"{self.name} did not end in order; it said:\n{log_of(self.name)}")


@asynccontextmanager
async def running(name: str, *command: str) -> AsyncIterator[Child]:
    """A child process; gone when the block ends, however it ends."""
    with (DATA / f"{name}.log").open("ab") as log:
        process = await anyio.open_process(
            [sys.executable, *command],
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
    try:
        yield Child(name, process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


def log_of(name: str) -> str:
    """The end of what a child logged."""
    text = (DATA / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-20:])


def show(step: str, *details: str) -> None:
    """Print a step as it happens."""
    lines = [f"{time.monotonic() - BEGUN:5.1f} s  {step}", *(f"         {detail}" for detail in details)]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def peer(name: str, signal: str) -> Any:
    """Start a peer."""
    return running(name, str(HERE / "peer.py"), str(DATA / name), signal)


async def main() -> None:
    """Run the demonstration.

    Raises:
        DemoError: A step went wrong.
    """
    groceries = json.loads((HERE / "groceries.json").read_text(encoding="utf-8"))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            running("signal", "-m", "dxos.cli", "--json", "signal", "serve", "--quiet", "--port", "0")
        )
        signal = (await server.read())["listening"]
        show("A signalling server lets peers find each other.", f"{signal} (process {server.number})")
        await share_and_edit(signal, groceries)
        await restart_and_edit(signal)


async def share_and_edit(signal: str, groceries: list[dict[str, Any]]) -> None:
    """Alice makes a space, Bob joins it, and both change it."""
    async with peer("alice", signal) as alice, peer("bob", signal) as bob:
        for child in (alice, bob):
            identity = await child.ask("identify", name=child.name.capitalize())
            show(f"{identity['name']} has an identity (process {child.number}).", identity["did"])

        space = await alice.ask("create_space", name="Groceries", objects=groceries)
        show(f"Alice creates the space Groceries with {len(groceries)} objects.", f"space {space['id']}")

        invitation = await alice.ask("invite")
        code = invitation["code"]
        show(
            "Alice invites Bob.",
            f"code {code[:24]}… ({len(code)} characters)",
            f"and, told by another way: {invitation['auth_code']}",
        )
        joined = await bob.ask("join", code=code, auth_code=invitation["auth_code"])
        show(f"Bob joins {joined['name'] or joined['id']} with both.")
        admitted = await alice.ask("wait_for_guest")
        show("Alice sees the members of the space.", ", ".join(admitted["members"]))

        found = await bob.ask("wait_for", count=len(groceries), where={"done": False})
        show(f"Bob sees all {found['found']} objects.")

        await bob.ask("edit", title="Milk", done=True, tag="bought by Bob")
        await bob.ask("add", value={"title": "Dark chocolate", "done": False, "tags": ["70 %"], "shop": {"aisle": 4}})
        show("Bob ticks off the milk, and adds dark chocolate.")
        await alice.ask("wait_for", count=1, where={"title": "Milk", "done": True})
        await alice.ask("wait_for", count=1, where={"title": "Dark chocolate"})
        show("Alice sees both.")
        await compare(alice, bob)
        await alice.stop()
        await bob.stop()
        show("Both processes end.")


async def restart_and_edit(signal: str) -> None:
    """Both begin again from what is on disk, and meet again."""
    async with peer("alice", signal) as alice, peer("bob", signal) as bob:
        await alice.ask("content")
        await bob.ask("content")
        show("Both have started again, from what is on disk.")
        await compare(alice, bob)
        await alice.ask("edit", title="Coffee", done=True, tag="bought by Alice")
        await bob.ask("wait_for", count=1, where={"title": "Coffee", "done": True})
        show("They have met again: Alice ticks off the coffee, and Bob sees it.")
        await compare(alice, bob)
        await alice.stop()
        await bob.stop()


async def compare(alice: Child, bob: Child) -> None:
    """Show that both hold the same."""
    ours, theirs = await alice.ask("content"), await bob.ask("content")
    if ours != theirs:
        different = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        raise DemoError(f"the contents differ in {len(different)} objects, {different[0]} among them")
    done = sum(one.get("done") is True for one in ours.values())
    show("Both replicas compared: equal.", f"{len(ours)} objects, {done} of them done")


def run() -> int:
    """Run the demonstration and say how it went; returns the exit code."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    try:
        with unwrap_group():
            anyio.run(main)
    except DemoError as error:
        sys.stderr.write(f"The demonstration failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    show(f"Done. The data is in {DATA}/.")
    return 0


if __name__ == "__main__":
    sys.exit(run())
