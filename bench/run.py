"""Measure this package, and the JavaScript client beside it, and print both with their ratio.

    python bench/run.py [--quick] [--only start,objects,…] [--runs 3] [--no-js] [--json FILE]

Both are measured turn by turn in the same run, because a machine's speed changes more from hour to hour than most of
what is measured here; the table shows medians. JavaScript is left out where Node or tests/interop/node_modules is not.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import ours
from ours import GROUPS, Samples, Settings
from rich.console import Console
from rich.table import Table

from dxos.mesh.signal_server import serve_signal
from dxos.version import __version__

_JS = Path(__file__).parent / "js" / "bench.mjs"
_JS_PACKAGE = Path(__file__).parent.parent / "tests" / "interop" / "node_modules" / "@dxos" / "client"
_JS_TIMEOUT_S = 900.0
_MIB = 1024 * 1024
_BIG = 10  # So many times the objects, in the rows for many.
_BIG_SUFFIX = "_big"  # Of the figures measured with them.


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    key: str
    title: str  # With the number of objects where it says {count}.
    unit: str  # ms, MB or B.


ROWS = (
    Row("initialize_ms", "initialize a new profile", "ms"),
    Row("create_identity_ms", "create an identity", "ms"),
    Row("create_space_ms", "create a space", "ms"),
    Row("create_objects_ms", "{count} objects created and flushed", "ms"),
    Row("update_objects_ms", "{count} updates flushed", "ms"),
    Row("reopen_same_process_ms", "reopen, {count} objects to the first full query, same process", "ms"),
    Row("reopen_fresh_from_initialize_ms", "the same in a fresh process, from initialize on", "ms"),
    Row("reopen_fresh_from_spawn_ms", "the same with the start of the process", "ms"),
    Row("join_objects_ms", "{count} objects to a joining peer, from its join on", "ms"),
    Row("join_objects_after_ready_ms", "the same, after the space was ready", "ms"),
    Row("edit_p50_ms", "an edit seen by the peer, p50", "ms"),
    Row("edit_p99_ms", "an edit seen by the peer, p99", "ms"),
    Row("edit_back_to_back_p50_ms", "edits back to back, p50", "ms"),
    Row("edit_back_to_back_p99_ms", "edits back to back, p99", "ms"),
    Row("invitation_handshake_ms", "invitation, code known to SUCCESS", "ms"),
    Row("invitation_ready_ms", "invitation, code known to the space ready", "ms"),
    Row("rss_after_create_bytes", "resident memory, {count} objects created", "MB"),
    Row("rss_after_reopen_bytes", "resident memory, {count} objects, reopened and queried", "MB"),
    Row("disk_bytes_per_object", "on disk for each of {count} objects", "B"),
)


@dataclass(slots=True)
class Results:
    """Samples of both sides, by the name of the figure."""

    ours: Samples = field(default_factory=dict)
    js: Samples = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    js_failed_joins: list[str] = field(default_factory=list)

    def take(self, side: Samples, found: Samples, suffix: str) -> None:
        """Add samples to one side."""
        for key, values in found.items():
            side.setdefault(key + suffix, []).extend(values)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure dxos for Python, and @dxos/client beside it.")
    parser.add_argument("--quick", action="store_true", help="few objects, one run: to see that everything works")
    parser.add_argument("--only", help=f"groups, with commas between: {', '.join(GROUPS)}, big")
    parser.add_argument("--runs", type=int, default=3, help="of each group; the table shows medians (default 3)")
    parser.add_argument("--count", type=int, default=1_000, help="objects (default 1000); big: ten times as many")
    parser.add_argument("--edits", type=int, default=200, help="edits of one run (default 200)")
    parser.add_argument("--no-js", action="store_true", help="leave out the JavaScript client")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.runs, arguments.count, arguments.edits = 1, min(100, arguments.count), min(20, arguments.edits)
    arguments.groups = [*GROUPS, "big"] if arguments.only is None else arguments.only.split(",")
    unknown = set(arguments.groups) - {*GROUPS, "big"}
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}, big")
    return arguments


def why_no_js(arguments: argparse.Namespace) -> str | None:
    """Why the JavaScript client is not measured; None where it is."""
    if arguments.no_js:
        return "left out with --no-js"
    if shutil.which("node") is None:
        return "left out: Node is not installed"
    if not _JS_PACKAGE.is_dir():
        return "left out: `make interop` installs it"
    return None


async def measure_ours(group: str, settings: Settings) -> Samples:
    """One run of one group here."""
    async with ours.open_bench(settings) as bench:
        return await GROUPS[group](bench)


async def measure_js(group: str, settings: Settings, results: Results) -> Samples:
    """One run of one group there."""
    command = ["node", str(_JS), "--signal", settings.signal_url, "--only", group, "--runs", "1"]
    command += ["--count", str(settings.count), "--edits", str(settings.edits)]
    with anyio.fail_after(_JS_TIMEOUT_S):
        done = await anyio.run_process(command, check=False, stderr=None)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        results.errors.append(f"js {group}: ended with {done.returncode}")
        return {}
    results.errors += [f"js {name}: {error}" for name, error in report["errors"].items()]
    results.js_failed_joins += report["failed_joins"]
    return dict(report["samples"])


async def measure(arguments: argparse.Namespace, results: Results, *, with_js: bool, console: Console) -> None:
    """Every group of every run, ours and theirs in turn."""
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_signal, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{port}/.well-known/dx/signal"
        for run in range(arguments.runs):
            for name in arguments.groups:
                big = name == "big"
                group, suffix = ("objects", _BIG_SUFFIX) if big else (name, "")
                count = arguments.count * _BIG if big else arguments.count
                settings = Settings(count, arguments.edits, 1 if arguments.quick else 5, url)
                console.print(f"run {run + 1} of {arguments.runs}: {name} …", style="dim")
                try:
                    results.take(results.ours, await measure_ours(group, settings), suffix)
                except* Exception as failed:  # noqa: BLE001 - one group that fails must not cost the figures of the others.
                    results.errors += [f"{name}: {one}" for one in failed.exceptions]
                # With ten thousand objects one run of the JavaScript client would take the better part of an hour.
                if with_js and not big:
                    try:
                        results.take(results.js, await measure_js(group, settings, results), suffix)
                    except TimeoutError:
                        results.errors.append(f"js {name}: not done after {_JS_TIMEOUT_S:.0f} s")
        tasks.cancel_scope.cancel()


def show(value: float | None, unit: str) -> str:
    """A figure with three digits that mean something."""
    if value is None:
        return "–"
    value = value / _MIB if unit == "MB" else value
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def table(arguments: argparse.Namespace, results: Results, js_note: str) -> Table:
    """The medians, ours beside theirs."""
    made = Table(title=f"dxos {__version__} and @dxos/client on {os.cpu_count()} CPUs, medians")
    made.add_column("")
    for name in ("Python", js_note, "ratio"):
        made.add_column(name, justify="right")
    for row in ROWS:
        for suffix, count in (("", arguments.count), (_BIG_SUFFIX, arguments.count * _BIG)):
            mine, theirs = (_median(side.get(row.key + suffix)) for side in (results.ours, results.js))
            if mine is None and theirs is None:
                continue
            ratio = "–" if not mine or theirs is None else f"{theirs / mine:.1f}×"
            if suffix and "{count}" not in row.title:
                title = f"{row.title} ({count:,})"
            else:
                title = row.title.format(count=f"{count:,}")
            made.add_row(title, show(mine, row.unit), show(theirs, row.unit), ratio)
    return made


def _median(values: list[float] | None) -> float | None:
    return statistics.median(values) if values else None


def as_json(arguments: argparse.Namespace, results: Results) -> dict[str, Any]:
    """All samples, for a program."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "count": arguments.count,
        "runs": arguments.runs,
        "edits": arguments.edits,
        "python_samples": results.ours,
        "js_samples": results.js,
        "python_medians": {key: _median(values) for key, values in results.ours.items()},
        "js_medians": {key: _median(values) for key, values in results.js.items()},
        "errors": results.errors,
        "js_failed_joins": results.js_failed_joins,
    }


def main() -> int:
    """Run, print, and say by the exit code whether everything could be measured."""
    arguments = parse(sys.argv[1:])
    console, log = Console(), Console(stderr=True)
    reason = why_no_js(arguments)
    results = Results()
    anyio.run(lambda: measure(arguments, results, with_js=reason is None, console=log))
    console.print(table(arguments, results, "JavaScript" if reason is None else f"JavaScript\n({reason})"))
    for error in results.errors:
        console.print(f"failed: {error}", style="red", markup=False)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(arguments, results), indent=2) + "\n")
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
