"""Two processes that edit and tell each other, one or both of which are killed on the way: nothing promised is lost.

`DXOS_CRASH_PEERS=100 pytest tests/process/test_crash_peers.py` kills more often than the few times of every run.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from process_people import WAIT_S, Remote, signalling

from dxos.spaces.doctor import examine_folder

KILLS = int(os.environ.get("DXOS_CRASH_PEERS", "3"))
SEED = 7
TURNS = 40  # Of each peer until the next kill, unless it is killed before.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(60 + 30 * KILLS),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Writer:
    """Has a peer add and edit, and notes what it said to have stored."""

    def __init__(self, remote: Remote, seed: str) -> None:
        self.remote, self._random = remote, random.Random(seed)
        self.added: set[int] = set()
        self.edited: set[tuple[int, str]] = set()
        self._numbers: Iterator[int] = iter(range(self._random.randrange(1000) * 1_000_000, sys.maxsize))

    async def write(self, acknowledged: int) -> None:
        """Ask for many turns at once, so that it never rests; return after that many are stored, or all."""
        turns: list[tuple[int, str | None]] = []
        for _ in range(TURNS):
            number = next(self._numbers)
            edits = self._random.random() < 0.4 and self.added
            turns.append((self._random.choice(sorted(self.added)), f"{number}") if edits else (number, None))
        for number, token in turns:
            if token is None:
                await self.remote.tell("add", count=1, start=number)
            else:
                await self.remote.tell("edit", number=number, by=token)
        for number, token in turns[:acknowledged]:
            await self.remote.answer()
            if token is None:
                self.added.add(number)
            else:
                self.edited.add((number, token))

    def check(self, content: dict[str, dict[str, object]]) -> None:
        """What it said to have stored is there."""
        tags = {one["number"]: one["tags"] for one in content.values() if "number" in one}
        assert self.added <= tags.keys()
        for number, token in self.edited:
            found = tags[number]
            assert isinstance(found, list)
            assert found.count(token) == 1


async def test_nothing_that_was_acknowledged_is_lost_when_peers_are_killed(tmp_path: Path) -> None:
    async with (
        signalling() as server,
        Remote(tmp_path / "alice", server) as alice,
        Remote(tmp_path / "bob", server, name="Bob") as bob,
    ):
        await crash(alice, bob)


async def crash(alice: Remote, bob: Remote) -> None:
    """Have both write, and one or both be killed, again and again."""
    chance = random.Random(SEED)
    await alice.ask("create", name="Groceries")
    code, auth_code = await alice.ask("invite")
    await bob.ask("join", code=code, auth_code=auth_code)
    assert await alice.ask("invited") == "SUCCESS"
    writers = [Writer(one, f"{SEED} {one.name}") for one in (alice, bob)]
    for _ in range(KILLS):
        killed = chance.choice([(alice,), (bob,), (alice, bob)])
        async with anyio.create_task_group() as tasks:
            for writer in writers:
                dies = writer.remote in killed
                tasks.start_soon(work, writer, chance.randrange(TURNS) if dies else TURNS, dies)
        for one in killed:
            report = await examine_folder(one.path)
            assert report.findings == ()
            await one.start()
        content = await agreed(alice, bob)
        for writer in writers:
            writer.check(content)
    for one in (alice, bob):
        assert await one.stop() == ""
        report = await examine_folder(one.path)
        assert report.findings == ()


async def work(writer: Writer, acknowledged: int, dies: bool) -> None:
    """Write, and be killed in the middle of it or not."""
    await writer.write(acknowledged)
    if dies:
        await writer.remote.kill()


async def agreed(alice: Remote, bob: Remote) -> dict[str, dict[str, object]]:
    """Wait until both have the same; it."""
    with anyio.fail_after(2 * WAIT_S):
        while True:
            content: dict[str, dict[str, object]] = await alice.ask("content")
            if content == await bob.ask("content"):
                return content
            await anyio.sleep(0.05)
