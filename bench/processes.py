"""What processes that share one profile take: to start, to call, to see each other's edits, to edit all at once, to go
on when others are killed or frozen, and to read. All of it with real workers and `bench/sharer.py` as application.

    python bench/run.py --only processes [--kills 40]
"""

import json
import os
import signal
import sqlite3
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
from driver import Bench, Peer, Side, now_ms, quantile

from dxos.worker.lockfile import alive_pid, read_leader

CALLS = 2_000
SEEN = 200
SEEN_PAUSE_MS = 5
EDITORS = 20
EDITS_PER_S = 8_000  # Of all, as they are offered; how many are made is measured.
EDIT_S = 3.0
FURTHER = 5  # Clients after the first.
SURVIVORS = 2
KILL_PAUSE_S = 1.1  # A worker that served for a second was a success, and is replaced at once.
WINDOW_S = 1.0  # In which the pause that a kill made must begin.
FROZEN_S = 6.0
READ_OBJECTS = 10_000
READS = 5


async def measure_processes(bench: Bench) -> None:
    """All of it; nothing for the JavaScript client, whose tabs share a profile only in a browser."""
    if bench.side is Side.JS:
        return
    quick = bench.settings.repeats == 1
    await _start(bench, repeats=bench.settings.repeats)
    await _speak(bench, quick=quick)
    await _edit_all(bench, editors=3 if quick else EDITORS, rate=EDITS_PER_S, seconds=0.5 if quick else EDIT_S)
    await _kill(bench, kills=2 if quick else bench.settings.kills)
    if not quick:
        await _freeze(bench)
    await _read(bench, objects=200 if quick else READ_OBJECTS)


async def _open(bench: Bench, folder: str) -> Peer:
    return await bench.share(folder)


async def _first(bench: Bench, folder: str) -> Peer:
    peer = await _open(bench, folder)
    await peer.do("identity", name="Alice")
    return peer


async def _start(bench: Bench, *, repeats: int) -> None:
    """First and further clients of a profile, from the start of the process and from `initialize`."""
    folder = bench.folder()
    await (await _first(bench, folder)).close()
    for _ in range(repeats):
        peers = [await _open(bench, folder) for _ in range(1 + FURTHER)]
        for number, peer in enumerate(peers):
            which = "further" if number else "first"
            bench.note(f"share_{which}_spawn_ms", peer.ready["at"] - peer.spawned_at)
            bench.note(f"share_{which}_initialize_ms", peer.ready["initializeMs"])
        bench.note("share_rss_bytes", *[(await peer.do("rss"))["rssBytes"] for peer in peers[1:]])
        for peer in reversed(peers):
            await peer.close()


async def _speak(bench: Bench, *, quick: bool) -> None:
    """Calls, and an edit that another process sees."""
    folder = bench.folder()
    alice = await _first(bench, folder)
    bob = await _open(bench, folder)
    calls = (await bob.do("calls", count=100 if quick else CALLS))["callMs"]
    bench.note("share_call_p50_ms", statistics.median(calls))
    await bob.do("watch")
    await alice.do("clock", count=20 if quick else SEEN, pauseMs=SEEN_PAUSE_MS)
    await anyio.sleep(0.1)
    bench.note("share_seen_p50_ms", statistics.median((await bob.do("watched"))["seenMs"]))
    await bob.close()
    await alice.close()


async def _edit_all(bench: Bench, *, editors: int, rate: int, seconds: float) -> None:
    """Many clients edit at once, at a rate; whether every one of them knows of all edits in the end."""
    folder = bench.folder()
    peers = [await _first(bench, folder)]
    peers += [await _open(bench, folder) for _ in range(editors - 1)]
    for peer in peers:
        await peer.do("prepare", follow=True)
    host_pid = worker_pid(folder)
    pids = [peer.process.pid for peer in peers]
    before_s, theirs_s = cpu_s(host_pid), sum(map(cpu_s, pids))
    answers = await _all(peers, "edit", rate=rate / editors, seconds=seconds)
    count = sum(one["edits"] for one in answers)
    begin, end = min(one["beginAt"] for one in answers), max(one["endAt"] for one in answers)
    known = await _all(peers, "await", count=count)
    worked_s, they_worked_s = cpu_s(host_pid) - before_s, sum(map(cpu_s, pids)) - theirs_s
    asked = await _all(peers, "ask")
    for one in (*known, *asked):
        assert one["count"] == count, f"{one['count']} of {count} edits are known"
    bench.note("share_edits_per_s", count / (end - begin) * 1_000)
    bench.note("share_edits_late_ms", max(one["at"] for one in known) - begin - seconds * 1_000)
    bench.note("share_edit_worker_us", worked_s / count * 1e6)
    bench.note("share_edit_clients_us", they_worked_s / count * 1e6)
    await _all(peers[1:], "close")
    await peers[0].close()


async def _all(peers: list[Peer], name: str, **fields: Any) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [{} for _ in peers]

    async def ask(number: int, peer: Peer) -> None:
        answers[number] = await peer.do(name, **fields)

    async with anyio.create_task_group() as tasks:
        for number, peer in enumerate(peers):
            tasks.start_soon(ask, number, peer)
    return answers


async def _kill(bench: Bench, *, kills: int) -> None:
    """Kill the leader, the worker, or both at once; the longest time in which a survivor had no edit acknowledged."""
    folder = bench.folder()
    peers = [await _first(bench, folder)]
    await peers[0].do("journal")
    for number in range(-3, kills):
        while len(peers) < 1 + SURVIVORS:
            peers.append(await _open(bench, folder))
            await peers[-1].do("journal")
        victim = "nobody" if number < 0 else ("leader", "worker", "both")[number % 3]
        await anyio.sleep(KILL_PAUSE_S)
        at, leader_pid = now_ms(), leader_of(folder)
        if victim in ("worker", "both"):
            os.kill(worker_pid(folder), signal.SIGKILL)
        if victim in ("leader", "both"):
            os.kill(leader_pid, signal.SIGKILL)
            peers = [one for one in peers if one.process.pid != leader_pid]
        bench.note(f"share_kill_{victim}_ms", await _pause(peers, at, WINDOW_S))
    killed = [
        one for victim in ("leader", "worker", "both") for one in bench.samples.get(f"share_kill_{victim}_ms", ())
    ]
    bench.note("share_kill_p50_ms", quantile(killed, 0.5))
    bench.note("share_kill_p99_ms", quantile(killed, 0.99))
    for peer in peers:
        await peer.close()


async def _pause(peers: list[Peer], since: float, window_s: float) -> float:
    """The longest time without an acknowledged edit, of those that begin before the window ends; the worst of all."""
    await anyio.sleep(window_s)
    worst = 0.0
    for peer in peers:
        ends = [*(await peer.do("acknowledged"))["at"], now_ms()]
        pauses = [after - before for before, after in pairwise(ends) if after >= since]
        worst = max([worst, *pauses])
    return worst


async def _freeze(bench: Bench) -> None:
    """Stop the leader, and the worker: how long others had no edit acknowledged, and a newcomer no client."""
    folder = bench.folder()
    peers = [await _first(bench, folder)]
    peers += [await _open(bench, folder) for _ in range(SURVIVORS)]
    for peer in peers:
        await peer.do("journal")
    await anyio.sleep(FROZEN_S)  # A leader this young is not deposed.
    at, leader_pid = now_ms(), leader_of(folder)
    os.kill(leader_pid, signal.SIGSTOP)
    try:
        newcomer = await _open(bench, folder)
        bench.note("share_frozen_leader_newcomer_ms", newcomer.ready["at"] - at)
        await newcomer.do("journal")
        others = [one for one in peers if one.process.pid != leader_pid]
        bench.note("share_frozen_leader_ms", await _pause(others, at, WINDOW_S))
    finally:
        os.kill(leader_pid, signal.SIGCONT)
    peers.append(newcomer)
    await anyio.sleep(KILL_PAUSE_S)
    at = now_ms()
    os.kill(worker_pid(folder), signal.SIGSTOP)
    bench.note("share_frozen_worker_ms", await _pause(peers, at, FROZEN_S))
    for peer in peers:
        await peer.close()


async def _read(bench: Bench, *, objects: int) -> None:
    """All objects, one, and a page by an index: asked of the worker, of a host in the process, and of SQLite itself."""
    folder = bench.folder()
    peer = await _first(bench, folder)
    space = (await peer.do("fill", count=objects))["spaceId"]
    worker = await peer.do("read", objects=objects, count=READS)
    direct = read_rows(Path(folder), space, objects)
    await peer.close()
    peer = await bench.share(folder, "local")
    local = await peer.do("read", objects=objects, count=READS)
    await peer.close()
    for how, found in (("worker", worker), ("local", local), ("direct", direct)):
        for what in ("all", "get", "page"):
            bench.note(f"share_read_{what}_{how}_ms", statistics.median(found[f"{what}Ms"]))


def read_rows(profile: Path, space: str, objects: int) -> dict[str, list[float]]:
    """Rows and their JSON, read as the worker does but by a connection of one's own, while the worker has it open."""
    database = sqlite3.connect(f"file:{profile / 'profile.sqlite'}?mode=ro", uri=True)
    columns = "id, kind, deleted, version, meta, data FROM objects"
    where = "WHERE space = (SELECT number FROM spaces WHERE id = ?)"
    object_id = database.execute(f"SELECT id FROM objects {where} LIMIT 1", [space]).fetchone()[0]
    questions = {
        "allMs": (f"SELECT {columns} {where} ORDER BY id", [space], READS),
        "getMs": (f"SELECT {columns} {where} AND id = ?", [space, object_id], 20 * READS),
        "pageMs": (f"SELECT {columns} {where} ORDER BY id LIMIT 50", [space], 20 * READS),
    }
    taken: dict[str, list[float]] = {}
    for name, (sql, parameters, count) in questions.items():
        taken[name] = []
        for _ in range(count):
            begin = now_ms()
            found = [(*row[:4], json.loads(row[4]), json.loads(row[5])) for row in database.execute(sql, parameters)]
            taken[name].append(now_ms() - begin)
            assert name != "allMs" or len(found) >= objects
    database.close()
    return taken


def worker_pid(folder: str) -> int:
    """The worker's process."""
    (pid,) = (pid for path in Path(folder, "host").glob("alive.*") if (pid := alive_pid(path)))
    return pid


def leader_of(folder: str) -> int:
    """The process that leads."""
    return int(str(read_leader(Path(folder, "host"))["pid"]))


def cpu_s(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
