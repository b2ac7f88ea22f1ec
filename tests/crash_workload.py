"""A random workload that dies at any moment, again and again, and what must be there each time afterwards.

`python crash_workload.py FOLDER FIRST COUNT` runs that many seeds from the first on. Each seed has one profile and
several lives: a child process opens the profile, goes on with the workload and says after each flush how far it is,
until it is killed. Then the doctor must find nothing, and the objects must be those of one moment of the workload, not
before the last that was acknowledged. One line of JSON for each seed tells how it went.

The modules are loaded once and children are forked, so that a life costs milliseconds.
"""

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import anyio
from process_people import settings

import dxos.services.local  # noqa: F401 - Before the children are made.
from dxos import Client, EchoObject, Space
from dxos.spaces.doctor import examine_folder

LIVES = 4
LIFE_S_MAX = 30.0
EPOCH_GROUPS = 15  # After so many there is a new epoch.
_WORDS = ("milk", "", "crème", "日本", "a\x00b", "🥕" * 3, "x" * 300)

Content = dict[int, dict[str, Any]]
Edit = tuple[str, int, Any, Any]  # What, the number of the object, where, and the value.


class Workload:
    """Groups of edits from a seed, and what they make of the objects."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._next = 1
        self.done = 0  # Groups.
        self.content: Content = {0: {"n": 0, "done": 0}}

    def step(self) -> list[Edit]:
        """The next group; it is one change, with the count of groups in it."""
        group = [self._edit() for _ in range(self._chance.choice((1, 1, 2, 5, 20)))]
        self.done += 1
        return [*group, self._note(("set", 0, "done", self.done))]

    def _edit(self) -> Edit:
        chance = self._chance
        numbers = [number for number in self.content if number]
        if not numbers or chance.random() < 0.2:
            self._next += 1
            return self._note(("add", self._next, None, {"title": self._value(), "tags": [self._value()], "shop": {}}))
        number = chance.choice(numbers[:3] + numbers[-3:])  # Some are edited often enough to be compacted.
        one = self.content[number]
        match chance.randrange(8):
            case 0:
                return self._note(("remove", number, None, None))
            case 1:
                size = chance.choice((20, 20, 20, 1_500))  # What does not compress makes documents be compacted.
                return self._note(("set", number, "big", chance.randbytes(size).hex()))
            case 2:
                return self._note(("nest", number, chance.choice("abc"), self._value()))
            case 3 if one["tags"]:
                return self._note(("pop", number, chance.randrange(len(one["tags"])), None))
            case 4 | 5:
                return self._note(("insert", number, chance.randint(0, len(one["tags"])), self._value()))
            case 6 if "note" in one:
                return self._note(("unset", number, "note", None))
        return self._note(("set", number, chance.choice(("title", "note")), self._value()))

    def _value(self) -> Any:
        chance = self._chance
        return chance.choice((None, True, chance.randrange(2**53), -0.5, chance.choice(_WORDS), chance.choice(_WORDS)))

    def _note(self, edit: Edit) -> Edit:
        what, number, place, value = edit
        if what == "add":
            self.content[number] = {"n": number, **json.loads(json.dumps(value))}
        elif what == "remove":
            del self.content[number]
        else:
            _apply(self.content[number], what, place, value)
        return edit


def _apply(target: Any, what: str, place: Any, value: Any) -> None:
    """Make an edit, to plain data as to a live object."""
    match what:
        case "set":
            target[place] = value
        case "unset":
            del target[place]
        case "nest":
            target["shop"][place] = value
        case "insert":
            target["tags"].insert(place, value)
        case "pop":
            del target["tags"][place]


async def live(folder: Path, seed: int, done: int) -> None:
    """One life: from the group after `done` on, until the process is killed."""
    workload = Workload(seed)
    while workload.done < done:
        workload.step()
    async with Client(settings(folder)) as client:
        if client.halo.identity.get() is None:
            await client.halo.create_identity(display_name="Alice")
        spaces = client.spaces.get()
        space = spaces[0] if spaces else await client.create_space(name="Groceries")
        await space.wait_until_ready()
        objects = await _objects(space)
        if 0 not in objects:
            objects[0] = space.db.add({"n": 0, "done": 0})
            await space.db.flush()
        print(workload.done, flush=True)
        while True:
            for what, number, place, value in workload.step():
                if what == "add":
                    objects[number] = space.db.add({"n": number, **value})
                elif what == "remove":
                    space.db.remove(objects.pop(number))
                else:
                    _apply(objects[number], what, place, value)
            await space.db.flush()
            print(workload.done, flush=True)
            if not workload.done % EPOCH_GROUPS:
                await space.create_epoch()


async def _objects(space: Space) -> dict[int, EchoObject]:
    return {one.n: one for one in await space.db.query().run() if "n" in one}


async def check(folder: Path, seed: int, acknowledged: int | None) -> int:
    """Look at what a death left; how many groups are done."""
    report = await examine_folder(folder)
    assert report.findings == (), report.findings[:3]
    async with Client(settings(folder)) as client:
        spaces = client.spaces.get()
        found = {} if not spaces else await _objects(await spaces[0].wait_until_ready())
        content = {number: one.to_dict() for number, one in found.items()}
    if not content:
        assert acknowledged is None, "the space is gone"
        return 0
    workload = Workload(seed)
    while workload.done < content[0]["done"]:
        workload.step()
    assert content == workload.content, "the content of no moment"
    assert acknowledged is None or acknowledged <= workload.done, "what was acknowledged is gone"
    return workload.done


def one_life(folder: Path, seed: int, done: int, chance: random.Random) -> int | None:
    """Let a child live and kill it; the last group that it acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        try:
            anyio.run(live, folder, seed, done)
        except BaseException:  # noqa: BLE001 - Whatever ends it otherwise than by a kill must be seen.
            traceback.print_exc()
        os._exit(3)
    os.close(writer)
    lines = chance.choice((0, 0, 1, 3, 10, 30, 100))
    pause_s = chance.random() * (0.08 if not lines else 0.005)
    said, deadline = b"", time.monotonic() + LIFE_S_MAX
    while said.count(b"\n") < lines and time.monotonic() < deadline:
        if select.select([reader], [], [], 1.0)[0]:
            part = os.read(reader, 65_536)
            if not part:
                break
            said += part
    select.select([], [], [], pause_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended by itself"
    while part := os.read(reader, 65_536):
        said += part
    os.close(reader)
    whole = said.decode().split("\n")[:-1]
    return int(whole[-1]) if whole else None


def main(folder: Path, first: int, count: int) -> None:
    """Run the seeds; a failed one leaves its profile where it is."""
    for seed in range(first, first + count):
        chance = random.Random(-seed - 1)
        path, done, history = folder / f"seed{seed}", 0, []
        try:
            for _ in range(LIVES):
                acknowledged = one_life(path, seed, done, chance)
                if path.exists():
                    done = anyio.run(check, path, seed, acknowledged)
                history.append((acknowledged, done))
            print(json.dumps({"seed": seed, "lives": history}), flush=True)
        except Exception as error:  # noqa: BLE001 - Told with its seed; the next ones are run.
            traceback.print_exc()
            print(json.dumps({"seed": seed, "lives": history, "error": repr(error)[:2000]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
