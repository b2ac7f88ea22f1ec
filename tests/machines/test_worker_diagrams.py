"""The diagrams of docs/processes.md are those of the tables, and no diagram is missing."""

import re
from pathlib import Path

from dxos.testing.diagrams import rewrite, states
from dxos.worker import coordinator, election, following, leadership, sessions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "processes.md"


def test_the_page_has_every_diagram_as_it_is_now() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rewrite(page) == page, "run `make diagrams`"
    names = re.findall(r"<!-- diagram: ([\w-]+) -->\n```mermaid\n", page)
    assert sorted(names) == sorted(["start", "election", "leadership", "coordinator", "port", "link", "sessions"])


def test_a_page_that_is_behind_is_written_again() -> None:
    behind = "# A\n<!-- diagram: port -->\nold\n<!-- end of diagram -->\nz\n"
    assert "old" not in rewrite(behind)
    assert rewrite(behind).startswith("# A\n")
    assert rewrite(behind).endswith("<!-- end of diagram -->\nz\n")


def test_every_transition_of_every_machine_is_in_its_diagram() -> None:
    for table in (election, leadership, coordinator, following, sessions):
        found = states(table.TRANSITIONS)
        for (source, event), target in table.TRANSITIONS.items():
            arrow = f"{source.value} --> {target.value}: {event.replace('_', ' ')}"
            assert arrow in found or f"{target.value}: from every state by {event}" in found
