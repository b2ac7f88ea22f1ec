"""What becomes of each call and stream of the contract when a host ends is what the documentation says."""

from pathlib import Path

from dxos.services.methods import Repeat, Stream, all_methods

PAGE = (Path(__file__).parents[3] / "docs" / "processes.md").read_text()
WORDS = {"import_space": "import_archive"}  # What the client calls it.


def test_the_page_names_every_call_that_is_not_made_again() -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith("|") and "`BrokenError`" in line)
    named = set(row.split("|")[1].replace("`", "").replace(" ", "").split(","))
    never = {one.attribute for one in all_methods().values() if one.repeat is Repeat.NEVER}
    assert named == {WORDS.get(one, one) for one in never}


def test_updates_alone_have_receipts_and_three_streams_are_no_states() -> None:
    methods = all_methods().values()
    assert [one.attribute for one in methods if one.repeat is Repeat.RECEIPT] == ["update"]
    events = {one.attribute for one in methods if one.stream is Stream.EVENTS}
    assert events == {"subscribe", "subscribe_messages", "query_logs"}
