"""The table of what was measured, as Markdown: what is aimed at, what was found, and what bounds it."""

import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from driver import Side

from dxos.version import __version__

_MIB = 1024 * 1024

Figures = dict[str, dict[int, list[float]]]  # Samples by the name of the figure and the number of objects.


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    key: str
    title: str
    unit: str  # ms, µs, MB or B.
    bound: str  # What bounds ours.
    targets: Mapping[int, float] = field(default_factory=dict)  # At most so much with so many objects.
    compared: bool = True  # Whether both sides do as much.


def _shared() -> tuple[Row, ...]:
    """Rows of processes that share a profile."""

    def row(key: str, title: str, unit: str, bound: str, target: float | None = None) -> Row:
        return Row(f"share_{key}", title, unit, bound, {} if target is None else {0: target}, compared=False)

    found = [
        row(
            "first_spawn_ms", "first process of a profile, start to ready", "ms", "imports here and in the worker", 600
        ),
        row("first_initialize_ms", "the same from `initialize` on", "ms", "imports of the worker's process", 600),
        row("further_spawn_ms", "each further process, start to ready", "ms", "imports", 150),
        row("further_initialize_ms", "the same from `initialize` on", "ms", "a few messages between threads", 150),
        row("rss_bytes", "its resident memory", "MB", "interpreter, anyio, protobuf, msgspec", 45 * _MIB),
        row("call_p50_ms", "a call to the worker, p50", "ms", "Python on both sides", 0.3),
        row("seen_p50_ms", "an edit in one process seen in another, p50", "ms", "Python, three processes", 2),
        row("edits_per_s", "20 processes editing, edits in sum", "/s", "both processors", 5_000),
        row("edits_late_ms", "until all 20 know of all edits, after the last should be made", "ms", "the same"),
        row("edit_worker_us", "the worker's computing for each", "µs", "transaction, document, row, messages"),
        row("edit_clients_us", "the computing of all 20 for each", "µs", "20 processes that decode it and tell it"),
    ]
    starting = "starting the host anew"
    bounds = {
        "nobody": "an edit",
        "the leader": "the worker stays, and is adopted",
        "the worker": starting,
        "both": starting,
    }
    for who, bound in bounds.items():
        title = f"longest pause of a process that edits, around the kill of {who}"
        found.append(row(f"kill_{who.split()[-1]}_ms", title, "ms", bound))
    return (
        *found,
        row("kill_p50_ms", "of all kills, p50", "ms", "the same"),
        row("kill_p99_ms", "of all kills, p99", "ms", "the same", 250),
        row("frozen_leader_ms", "longest pause when the leader is frozen", "ms", "nothing: the worker works", 5e3),
        row("frozen_leader_newcomer_ms", "a newcomer ready then", "ms", "2.5 s of silence", 5e3),
        row("frozen_worker_ms", "longest pause when the worker is frozen", "ms", "2 s of silence", 5e3),
        *(
            row(f"read_{what}_{how}_ms", f"{title}, {by}", "ms", "Python objects")
            for what, title in (("all", "10,000 objects queried"), ("get", "one object"), ("page", "a page of 50"))
            for how, by in (
                ("worker", "by the worker"),
                ("local", "by a host in the process"),
                ("direct", "rows alone"),
            )
        ),
    )


ROWS = (
    Row("initialize_ms", "initialize a new profile", "ms", "opening SQLite"),
    Row("create_identity_ms", "create an identity", "ms", "two waits for the disk, signatures"),
    Row("create_space_ms", "create a space", "ms", "two waits for the disk, signatures"),
    Row("invitation_handshake_ms", "invitation, code known to SUCCESS", "ms", "pauses of the protocol, 100 ms"),
    Row("invitation_ready_ms", "invitation, code known to the space ready", "ms", "the same"),
    Row("edit_p50_ms", "an edit seen by a peer, p50", "ms", "Python on both sides; no timer on the way"),
    Row("edit_p99_ms", "an edit seen by a peer, p99", "ms", "the same"),
    Row("edit_back_to_back_p50_ms", "edits back to back, p50", "ms", "the same; JavaScript sends ten times a second"),
    Row("edit_back_to_back_p99_ms", "edits back to back, p99", "ms", "the same"),
    Row("create_objects_ms", "objects added and flushed", "ms", "one Automerge document and row each", {10_000: 3e3}),
    Row("update_objects_ms", "single-field updates flushed", "ms", "loading the document", {10_000: 3e3}),
    Row(
        "reopen_from_initialize_ms",
        "reopen and first full query, fresh process, from `initialize` on",
        "ms",
        "JSON and Python objects; garbage collection",
        {10_000: 500, 100_000: 4e3},
    ),
    Row("reopen_from_spawn_ms", "the same with the start of the process", "ms", "imports"),
    Row("find_ms", "filter by an indexed field", "ms", "SQL, one row", {100_000: 5}),
    Row("find_first_ms", "the first such query, which makes the index", "ms", "reading each row once"),
    Row("page_ms", "first page of 50, by id", "ms", "50 Python objects", {100_000: 10}),
    Row("page_ordered_ms", "first page of 50, by an indexed field", "ms", "50 Python objects", {100_000: 10}),
    Row("edit_durable_p50_ms", "a one-field edit acknowledged durable, p50", "ms", "fsync", {100_000: 3}),
    Row("edit_durable_p99_ms", "the same, p99", "ms", "fsync"),
    Row("edit_seen_p50_ms", "a one-field edit seen by a subscribed query, p50", "ms", "one turn", {100_000: 1}),
    Row("add_one_first_ms", "the first object added after opening, flushed", "ms", "loading the root document"),
    Row("add_one_ms", "another one", "ms", "fsync"),
    Row("follow_object_each_us", "each of 10,000 subscriptions of one object", "µs", "Python"),
    Row("follow_object_edit_ms", "an edit of that object, until all were told", "ms", "10,000 calls", compared=False),
    Row("follow_same_each_us", "each of 10,000 subscriptions of one query that finds it", "µs", "Python"),
    Row("follow_same_edit_ms", "an edit of it, until all were told", "ms", "10,000 calls", compared=False),
    Row("follow_different_each_us", "each of 10,000 different queries that find it", "µs", "one SQL query each"),
    Row("follow_different_edit_ms", "an edit of it, until all were told", "ms", "10,000 results and calls"),
    Row("follow_others_each_us", "each of 10,000 different queries that find nothing", "µs", "one SQL query each"),
    Row("follow_others_edit_ms", "an edit that concerns none of them, flushed", "ms", "fsync", compared=False),
    Row("rss_opened_bytes", "resident memory, space opened", "MB", "interpreter and libraries, 57 MB"),
    Row("rss_touched_bytes", "the same, 1,000 objects read and changed", "MB", "256 documents", {100_000: 200 * _MIB}),
    Row("rss_held_bytes", "the same, all objects read and held", "MB", "2 kB for each object"),
    Row("disk_bytes_per_object", "on disk for each object, as left", "B", "changes one by one, the row, the link"),
    Row(
        "disk_compact_bytes_per_object",
        "on disk for each object, after compaction",
        "B",
        "document, row, heads, ids, link",
        {1_000: 900, 10_000: 900, 100_000: 900},
    ),
    Row("compact_ms", "compaction", "ms", "loading each document"),
    Row(
        "join_objects_ms",
        "objects to a joining peer, from its join on",
        "ms",
        "Python on both sides: a message, an answer and a commit each",
        {10_000: 15e3},
    ),
    Row("join_objects_after_ready_ms", "the same, after the space was ready", "ms", "the same"),
    Row("join_stall_host_ms", "longest stall of the event loop meanwhile, host", "ms", "one slice", {10_000: 50}),
    Row("join_stall_host_cpu_ms", "of it computing, the rest waiting for a processor", "ms", "the same"),
    Row("join_stall_guest_ms", "longest stall of the event loop meanwhile, guest", "ms", "one slice", {10_000: 50}),
    Row("join_stall_guest_cpu_ms", "of it computing", "ms", "the same"),
    Row(
        "text_ms",
        "a text written in 250,000 edits, 100 a turn, and flushed",
        "ms",
        "Automerge",
        {0: 10e3},
        compared=False,
    ),
    Row("text_each_us", "each of these edits", "µs", "Automerge"),
    *_shared(),
)


@dataclass(slots=True)
class Results:
    """Samples of both sides."""

    figures: dict[Side, Figures] = field(default_factory=lambda: {side: {} for side in Side})
    errors: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    failed_joins: int = 0  # Of the JavaScript client.

    def take(self, side: Side, count: int, samples: Mapping[str, list[float]]) -> None:
        """Add samples; `count` is 0 where the number of objects does not matter."""
        for key, values in samples.items():
            self.figures[side].setdefault(key, {}).setdefault(count, []).extend(values)

    def counts(self, side: Side) -> list[int]:
        """The numbers of objects that one side was measured with."""
        return sorted({count for found in self.figures[side].values() for count in found if count})

    def median(self, side: Side, key: str, count: int) -> float | None:
        """The median of a figure; infinity where one was longer than is waited for."""
        values = self.figures[side].get(key, {}).get(count)
        return None if not values else math.inf if math.inf in values else statistics.median(values)


def show(value: float | None, unit: str, step_s: float) -> str:
    """A figure with three digits that mean something."""
    if value is None:
        return "–"
    if value == math.inf:
        return f"> {step_s:.0f} s"
    value = value / _MIB if unit == "MB" else value
    if unit == "ms" and value >= 1_000:
        value, unit = value / 1_000, "s"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def markdown(results: Results, step_s: float, js_note: str) -> str:
    """All medians: ours, theirs, and the ratio where both were measured with as many objects."""
    ours, theirs = results.counts(Side.OURS), results.counts(Side.JS)
    names = [f"{count:,}" for count in ours] or ["Python"]
    js_names = [f"JS {count:,}" for count in theirs] or ["JS"]
    lines = [
        f"dxos {__version__}, Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs; "
        f"medians; columns of numbers: Python with so many objects; {js_note}.",
        "",
        _line(["", "target", *names, *js_names, "JS / Python", "bound by"]),
        _line(["---", "---:", *["---:"] * (len(names) + len(js_names) + 1), "---"]),
    ]
    for row in ROWS:
        mine = {count: results.median(Side.OURS, row.key, count) for count in (0, *ours)}
        other = {count: results.median(Side.JS, row.key, count) for count in (0, *theirs)}
        if all(value is None for value in (*mine.values(), *other.values())):
            continue
        cells = _spread(mine, ours, len(names)), _spread(other, theirs, len(js_names))
        both = [count for count in mine if mine[count] and other.get(count) and other[count] != math.inf]
        ratio = "–"
        if both and row.compared:
            most = max(both)
            mine_most, other_most = mine[most], other[most]
            assert mine_most is not None
            assert other_most is not None
            ratio = f"{other_most / mine_most:,.1f}×" + (f" at {most:,}" if most else "")
        shown = [[show(value, row.unit, step_s) if value is not None else "" for value in side] for side in cells]
        lines.append(_line([row.title, _aim(row, mine), *shown[0], *shown[1], ratio, row.bound]))
    return "\n".join(lines)


def _spread(values: Mapping[int, float | None], counts: list[int], width: int) -> list[float | None]:
    """One cell for each column; what does not depend on the number of objects is in the first."""
    if values.get(0) is not None:
        return [values[0], *[None] * (width - 1)]
    return [values.get(count) for count in counts] or [None] * width


def _aim(row: Row, found: Mapping[int, float | None]) -> str:
    """The targets, and whether they were met."""
    shown = []
    for count, limit in row.targets.items():
        value = found.get(count)
        is_rate = row.unit == "/s"  # Of which more is better.
        met = value is not None and (value >= limit if is_rate else value <= limit)
        verdict = "" if value is None else " ✓" if met else " **missed**"
        aim = show(limit, row.unit, 0)
        shown.append(f"{'≥' if is_rate else '≤'} {aim}{f' at {count:,}' if count else ''}{verdict}")
    return "<br>".join(shown)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(results: Results, settings: Mapping[str, Any]) -> str:
    """All samples, for a program; what was longer than is waited for is null."""
    figures = {
        side.value: {
            key: {str(count): [None if one == math.inf else one for one in values] for count, values in found.items()}
            for key, found in results.figures[side].items()
        }
        for side in Side
    }
    targets = {row.key: {str(count): limit for count, limit in row.targets.items()} for row in ROWS if row.targets}
    about = {"version": __version__, "python": platform.python_version(), "cpus": os.cpu_count(), **settings}
    failed = {"errors": results.errors, "too_long": results.too_long, "js_failed_joins": results.failed_joins}
    return json.dumps({**about, "samples": figures, "targets": targets, **failed}, indent=2) + "\n"
