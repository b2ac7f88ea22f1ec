"""Measure this package, and the JavaScript client beside it, and print a table in Markdown with what is aimed at.

    python bench/run.py [--quick] [--only echo,big,query,…] [--runs 1] [--services local] [--no-js] [--json FILE]

Both are measured in turn in the same run, because a machine's speed changes more from hour to hour than most of what is
measured here; the table shows medians. JavaScript is left out where Node or tests/interop/node_modules is not.

Ours is measured with 1,000 objects and, as `big`, with 10,000 and 100,000. The JavaScript client's times grow faster
than the number of objects: it is measured with 500, 1,000 and 2,000, and with 10,000 each step is given 300 s.
"""

import argparse
import shutil
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from driver import JS_FOLDER, Bench, PeerFailed, Settings, Shelf, Side, StepTooLong
from groups import GROUPS, GROWING
from report import Results, as_json, markdown

from dxos.mesh.signal_server import serve_signal

_JS_PACKAGE = JS_FOLDER / "node_modules" / "@dxos" / "client"
_COUNT = 1_000
_BIG = (10_000, 100_000)
_SYNC_MAX = 10_000  # Objects to a joining peer: more take longer than anybody waits for a table.
_JS_GROWTH = (500, 1_000, 2_000)
_JS_BIG = 10_000
_STEP_S = 300.0


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure dxos for Python, and @dxos/client beside it.")
    parser.add_argument("--quick", action="store_true", help="few objects, one run: to see that everything works")
    parser.add_argument("--only", help=f"groups, with commas between: {', '.join(GROUPS)}, big (more objects in all)")
    parser.add_argument("--runs", type=int, default=1, help="of each group; the table shows medians (default 1)")
    parser.add_argument("--edits", type=int, default=200, help="edits of one run (default 200)")
    parser.add_argument("--services", choices=("local", "worker"), default="local", help="of our peers (default local)")
    parser.add_argument("--kills", type=int, default=24, help="of processes that share a profile (default 24)")
    parser.add_argument("--no-js", action="store_true", help="leave out the JavaScript client")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    arguments = parser.parse_args(argv)
    wanted = [*GROUPS, "big"] if arguments.only is None else arguments.only.split(",")
    unknown = set(wanted) - {*GROUPS, "big"}
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}, big")
    arguments.big = "big" in wanted and not arguments.quick
    arguments.groups = [name for name in GROUPS if name in wanted] or list(GROWING)
    if arguments.quick:
        arguments.runs, arguments.edits = 1, min(20, arguments.edits)
    return arguments


def why_no_js(arguments: argparse.Namespace) -> str | None:
    """Why the JavaScript client is not measured; None where it is."""
    if arguments.no_js:
        return "JavaScript left out with --no-js"
    if shutil.which("node") is None:
        return "JavaScript left out: Node is not installed"
    if not _JS_PACKAGE.is_dir():
        return "JavaScript left out: `make interop` installs it"
    return None


def plan(arguments: argparse.Namespace, *, with_js: bool) -> list[tuple[Side, str, int]]:
    """What is measured, in order; ours and theirs of one group and number one after the other."""
    steps: list[tuple[Side, str, int]] = []
    counts = [100] if arguments.quick else [_COUNT, *_BIG] if arguments.big else [_COUNT]
    js_counts = [100] if arguments.quick else [*_JS_GROWTH, _JS_BIG] if arguments.big else [_COUNT]
    for name in arguments.groups:
        if name not in GROWING:
            steps.append((Side.OURS, name, 0))
            steps += [(Side.JS, name, 0)] if with_js else []
    for count in sorted({*counts, *js_counts} if with_js else counts):
        for name in arguments.groups:
            if name in GROWING:
                if count in counts and (name != "sync" or count <= _SYNC_MAX):
                    steps.append((Side.OURS, name, count))
                if with_js and count in js_counts:
                    steps.append((Side.JS, name, count))
    return steps


async def measure(arguments: argparse.Namespace, results: Results, *, with_js: bool) -> None:
    """Every group of every run, ours and theirs in turn."""
    begin = time.monotonic()
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_signal, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{port}/.well-known/dx/signal"
        steps = plan(arguments, with_js=with_js)
        for run in range(arguments.runs):
            shelf: Shelf = {}
            async with AsyncExitStack() as shelf_stack:
                for number, (side, name, count) in enumerate(steps, start=1):
                    # What the first step cannot do in its time, the others need not try.
                    if (side, count) in _hopeless(results):
                        continue
                    about = f"{side.value} {name}" + (f" {count:,}" if count else "")
                    at = f"{time.monotonic() - begin:4.0f} s, run {run + 1}, {number}/{len(steps)}"
                    print(f"{at}: {about} …", file=sys.stderr, flush=True)
                    size = count or (100 if arguments.quick else 10_000)
                    repeats = 1 if arguments.quick else 5
                    settings = Settings(
                        size, arguments.edits, repeats, _STEP_S, url, arguments.services, arguments.kills
                    )
                    await measure_one(side, name, count, settings, results, about, shelf, shelf_stack)
        tasks.cancel_scope.cancel()
    print(f"{time.monotonic() - begin:4.0f} s: done", file=sys.stderr)


def _hopeless(results: Results) -> set[tuple[Side, int]]:
    """What has more objects than can be made in the time of a step."""
    found = results.figures[Side.JS].get("create_objects_ms", {})
    return {(Side.JS, count) for count in found if results.median(Side.JS, "create_objects_ms", count) == float("inf")}


async def measure_one(
    side: Side,
    name: str,
    count: int,
    settings: Settings,
    results: Results,
    about: str,
    shelf: Shelf,
    shelf_stack: AsyncExitStack,
) -> None:
    """One run of one group; what fails costs what comes after it in the group, and nothing else."""
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        bench = Bench(side, settings, tasks, stack, shelf, shelf_stack)
        try:
            await GROUPS[name](bench)
        except StepTooLong as stopped:
            results.too_long.append(f"{about}: {stopped} was not done after {settings.step_s:.0f} s")
        except PeerFailed as failed:
            results.errors.append(f"{about}: {failed}")
        results.take(side, count, bench.samples)
        results.failed_joins += bench.failed_joins
        stack.push_async_callback(_stop, tasks)


async def _stop(tasks: anyio.abc.TaskGroup) -> None:
    tasks.cancel_scope.cancel()


def main() -> int:
    """Run, print, and say by the exit code whether everything could be measured."""
    arguments = parse(sys.argv[1:])
    reason = why_no_js(arguments)
    results = Results()
    anyio.run(lambda: measure(arguments, results, with_js=reason is None))
    print(
        markdown(
            results, _STEP_S, reason or "JS: @dxos/client 0.8.3 with so many, 100 subscriptions, 25,000 edits of a text"
        )
    )
    for one in results.too_long:
        print(f"\nNot waited for: {one}.")
    for error in results.errors:
        print(f"\nFailed: {error}.")
    if arguments.json is not None:
        names = ("runs", "edits", "groups", "services")
        settings = {name: getattr(arguments, name) for name in names}
        arguments.json.write_text(as_json(results, settings))
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
