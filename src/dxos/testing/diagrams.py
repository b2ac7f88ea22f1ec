"""Diagrams for the documentation, made from the tables that the machines themselves use.

`python -m dxos.testing.diagrams docs/processes.md` writes each one between its two marks again:

    <!-- diagram: election -->
    …
    <!-- end of diagram -->
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

from dxos.worker import coordinator, election, following, leadership, sessions

Table = Mapping[tuple[Any, str], Any]  # Of a state and an event, to a state; each machine has an enum of its own.
_MARKED: Final = re.compile(r"(<!-- diagram: ([\w-]+) -->\n).*?(<!-- end of diagram -->)", re.DOTALL)
_TABLES: Final[Mapping[str, Table]] = {
    "election": election.TRANSITIONS,
    "leadership": leadership.TRANSITIONS,
    "coordinator": coordinator.TRANSITIONS,
    "port": following.TRANSITIONS,
    "link": following.LINK_TRANSITIONS,
    "sessions": sessions.TRANSITIONS,
}
# Who says what to whom until a first and a second client have their sessions; a test compares real ones with it.
START: Final = (
    ("C1", "Coord", "hello"),
    ("Coord", "C1", "welcome"),
    ("W", "C1", "listening"),
    ("C1", "W", "init"),
    ("W", "C1", "ready"),
    ("C1", "Coord", "new-leader"),
    ("Coord", "C1", "new-leader"),
    ("C1", "Coord", "request-port"),
    ("Coord", "C1", "request-port"),
    ("C1", "W", "start-session"),
    ("W", "C1", "session"),
    ("C1", "Coord", "provide-port"),
    ("Coord", "C1", "provide-port"),
    ("C2", "Coord", "hello"),
    ("Coord", "C2", "welcome"),
    ("C2", "Coord", "request-port"),
    ("Coord", "C1", "request-port"),
    ("C1", "W", "start-session"),
    ("W", "C1", "session"),
    ("C1", "Coord", "provide-port"),
    ("Coord", "C2", "provide-port"),
)


def states(table: Table) -> str:
    """A table of transitions as a state diagram; what every state allows is said once."""
    kind: type[Enum] = type(next(iter(table))[0])
    first, *_ = kind  # A machine begins in the first state of its enum.
    sources_count = len({source for source, _ in table})
    ways = Counter((event, target) for (_, event), target in table.items())
    lines = ["stateDiagram-v2", f"    [*] --> {first.value}"]
    for (source, event), target in table.items():
        if ways[event, target] < sources_count:
            lines.append(f"    {source.value} --> {target.value}: {event.replace('_', ' ')}")
    for (event, target), number in ways.items():
        if number == sources_count:
            lines += [f"    {target.value}", f"    note right of {target.value}: from every state by {event}"]
    return "\n".join(lines)


def start() -> str:
    """The start as a sequence diagram."""
    lines = [
        "sequenceDiagram",
        "    participant C1 as Client 1 (leader)",
        "    participant Coord as Coordinator (in the leader's process)",
        "    participant W as Worker (its own process)",
        "    participant C2 as Client 2 (follower)",
    ]
    titles = {
        ("C1", "Coord", "hello"): "C1 takes the leader lock, listens as coordinator, and starts the worker",
        ("C1", "Coord", "request-port"): "C1 connects like everybody else",
        ("C2", "Coord", "hello"): "C2 finds the lock taken",
    }
    for sender, receiver, message in START:
        title = titles.pop((sender, receiver, message), None)
        if title:
            lines.append(f"    Note over C1, C2: {title}")
        lines.append(f"    {sender}->>{receiver}: {message}")
    return "\n".join(lines)


def diagram(name: str) -> str:
    """One diagram by its name, as the lines between its marks."""
    return f"```mermaid\n{start() if name == 'start' else states(_TABLES[name])}\n```\n"


def rewrite(page: str) -> str:
    """A page with its diagrams as they have to be."""
    return _MARKED.sub(lambda found: found[1] + diagram(found[2]) + found[3], page)


def main() -> None:
    """Write the pages that are named again."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(rewrite(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
