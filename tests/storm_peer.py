"""A client in a storm: it edits on and on, writes down what was acknowledged, and looks at all that it is told.

Arguments and commands are those of `worker_peer.py`, and a few more. The journal has one line for each event: `i N`,
the group N is about to be stored; `a N`, it was acknowledged; `r N`, it was refused, as there is no room.
"""

import hashlib
import json
import os
import random
import sys
from functools import partial
from typing import Any

import anyio
from storm_edits import Story, by_writer, tokens_of
from worker_peer import WAIT_S, Peer, main

from dxos import EchoObject, SystemStatus
from dxos.errors import StorageFullError

PAUSE_S_MAX = 0.06


class StormPeer(Peer):
    """What can be asked besides."""

    async def found(self) -> None:
        """Make what all share."""
        space = self._client.spaces.get()[0]
        space.db.add({"kind": "board", "log": [], "text": "", "counts": {}})
        await space.db.flush()

    async def edit(self, seed: int, name: str, journal: str) -> None:
        """Begin to edit, and go on until asked to `rest`."""
        self._story = Story(seed, name)
        self._wrong: list[str] = []
        self._resting, self._rested = anyio.Event(), anyio.Event()
        self._known: dict[str, dict[str, list[int]]] = {}
        self._seen: dict[str, str] = {}  # The content of each object as it was told of last.
        space = self._space = await self._client.spaces.get()[0].wait_until_ready(WAIT_S)
        (self._board,) = await space.db.query(kind="board").run()
        self._client.halo.identity.subscribe(self._identified)
        space.db.query().subscribe(self._look)
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._tasks.start_soon(self._go_on)

    def _write(self, line: str) -> None:
        os.write(self._journal, f"{line}\n".encode())

    async def _go_on(self) -> None:
        story, space, board = self._story, self._space, self._board
        chance = random.Random(f"{story.seed} {story.name}")
        own: EchoObject | None = None
        number = 0
        while not self._resting.is_set():
            number += 1
            group = story.group(number)
            self._write(f"i {number}")
            if own is None:
                own = space.db.add({"kind": "own", "owner": story.name, "text": "", "last": 0})
            start, gone, inserted = group.splice
            own.splice("text", start, gone, inserted)
            own.last = number
            if group.logs:
                board.log.append(group.token)
            if group.writes:
                board.splice("text", len(board.text), 0, f"{group.token};")
            if group.counts:
                board.counts[story.name] = number
            if group.creates:
                space.db.add({"kind": "made", "token": group.token})
            try:
                await space.db.flush()
            except StorageFullError:
                self._write(f"r {number}")
                if not story.last:
                    own = None  # It was never stored.
                elif own.text != story.text:
                    self._wrong.append(f"{number} was refused and not taken back: {own.text!r}, {story.text!r}")
                await anyio.sleep(PAUSE_S_MAX)
            else:
                self._write(f"a {number}")
                story.tell(group)
            with anyio.move_on_after(chance.random() * PAUSE_S_MAX):
                await self._resting.wait()
        self._rested.set()

    # --- Looking ---

    def _identified(self, identity: object) -> None:
        if identity is None:
            self._wrong.append("the identity was gone")

    def _look(self, update: Any) -> None:
        for one in update.removed:
            if "token" in one and one.token.partition(":")[0] != self._story.name:
                self._wrong.append(f"removed: {one}")
            self._seen.pop(one.id, None)
        for one in update.added:
            if one.id in self._seen:
                self._wrong.append(f"added twice: {one}")
        for one in (*update.added, *update.changed):
            content = digest(one.to_dict())
            if self._seen.get(one.id) == content:
                self._wrong.append(f"told twice: {one}")
            self._seen[one.id] = content
            if "log" in one:
                self._look_at_board(one)

    def _look_at_board(self, board: EchoObject) -> None:
        if board is not self._board:
            self._wrong.append("the object is another one")
        told = {
            "log": by_writer(board.log.to_list()),
            "text": by_writer(tokens_of(board.text)),
            "counts": {name: [count] for name, count in board.counts.to_dict().items()},
        }
        for part, now in told.items():
            before = self._known.get(part, {})
            for name in before.keys() | now.keys():
                if name == self._story.name:
                    continue  # What is refused is taken back; this one knows of its own.
                was, found = before.get(name, []), now.get(name, [])
                if part == "counts" and found >= was:
                    continue
                if part == "counts" or found[: len(was)] != was or found != sorted(set(found)):
                    self._wrong.append(f"{part} of {name}: first {was[-5:]}, then {found[len(was) - 5 :]}")
        self._known = told

    # --- The end ---

    async def rest(self) -> list[str]:
        """Edit no more; what was wrong until now."""
        self._resting.set()
        with anyio.fail_after(WAIT_S):
            await self._rested.wait()
            await self._client.status.wait_for(lambda one: one is SystemStatus.ACTIVE)
        return self._wrong

    async def digests(self) -> list[str]:
        """What a query finds, and what the subscription has shown: as digests of the same kind."""
        asked = {one.id: digest(one.to_dict()) for one in await self._space.db.query().run()}
        return [digest(asked), digest(self._seen)]


def digest(value: object) -> str:
    """A digest of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    anyio.run(partial(main, make=StormPeer), sys.argv[1], backend=sys.argv[2])
