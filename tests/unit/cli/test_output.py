import io
import json
import re

import pytest
from rich.cells import cell_len

from dxos.cli.output import Output, as_json, cell, fields, line, plural, pretty, rows, visible


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


def printed(output: Output) -> str:
    stdout = output._stdout
    assert isinstance(stdout, io.StringIO)
    return stdout.getvalue()


def output(*, json: bool = False) -> Output:
    return Output(json=json, stdout=io.StringIO(), stderr=io.StringIO())


def said(one: Output) -> str:
    stderr = one._stderr
    assert isinstance(stderr, io.StringIO)
    return stderr.getvalue()


def test_escape_sequences_of_other_peers_are_shown_instead_of_obeyed() -> None:
    assert visible("\x1b]0;title\x07Milk\x9b2J") == "\\u001b]0;title\\u0007Milk\\u009b2J"
    assert visible("\u202egnp.exe") == "\\u202egnp.exe"


def test_a_name_stays_on_one_line_and_a_message_keeps_its_lines() -> None:
    assert visible("a\nb") == "a\\u000ab"
    assert visible("a\nb", lines=True) == "a\nb"


def test_letters_of_every_language_are_shown_as_they_are() -> None:
    assert visible("Crème fraîche 牛乳 🥛") == "Crème fraîche 牛乳 🥛"


def test_json_reads_back_whatever_it_holds() -> None:
    for text in ("\x1b[2J", "\x7f\x9b", "\u2028", "牛乳", 'a "b" \\u0041', "\u202e"):
        assert json.loads(as_json({"title": text})) == {"title": text}
        assert "\x9b" not in as_json(text)


def test_json_output_is_one_document_a_line() -> None:
    one = output(json=True)
    one.result({"a": "x\ny"}, pretty)
    one.result([1, 2], pretty)
    assert [json.loads(text) for text in printed(one).splitlines()] == [{"a": "x\ny"}, [1, 2]]


def test_messages_never_mix_with_results() -> None:
    one = output()
    one.say("Waiting …")
    assert printed(one) == ""
    assert said(one) == "Waiting …\n"


def test_an_error_is_a_sentence_for_people_and_a_document_for_programs() -> None:
    plain, structured = output(), output(json=True)
    plain.error("storage.full", "No room.")
    structured.error("storage.full", "No room.")
    assert (printed(plain), said(plain)) == ("", "No room.\n")
    assert json.loads(printed(structured)) == {"error": {"code": "storage.full", "message": "No room."}}
    assert said(structured) == "No room.\n"


def test_fields_leave_out_what_is_not_known() -> None:
    one = output()
    one.result({"name": "Alice", "did": None, "online": 2}, fields({"name": "Name", "did": "DID", "online": "Online"}))
    assert [text.split() for text in printed(one).splitlines()] == [["Name", "Alice"], ["Online", "2"]]


def test_a_table_has_a_line_for_each_document_and_is_not_cut_without_a_terminal() -> None:
    one = output()
    documents = [{"id": "A" * 26, "data": {"title": "x" * 500}}, {"id": "B", "data": None}]
    one.result(documents, rows({"id": "Id", "data": "Content"}, empty="Nothing.", wide="data"))
    lines = printed(one).splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["Id", "Content"]
    assert lines[1].split(maxsplit=1) == ["A" * 26, as_json({"title": "x" * 500})]


def test_only_the_wide_column_gives_way_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    one = Output(stdout=Terminal(), stderr=Terminal())
    documents = [{"id": "A" * 26, "data": "牛乳" * 50, "n": 1}, {"id": "B", "data": "x\x1b", "n": 2}]
    one.result(documents, rows({"id": "Id", "data": "Content", "n": "N"}, empty="Nothing.", wide="data"))
    head, first, second = re.sub(r"\x1b\[\d*m", "", printed(one)).splitlines()
    assert head.split() == ["Id", "Content", "N"]
    assert first.startswith("A" * 26 + "  牛乳")
    assert first.endswith("…  1")
    assert cell_len(first) == 60
    assert second.split() == ["B", "x\\u001b", "2"]


def test_text_of_others_in_csv_reaches_files_as_it_is_and_terminals_made_visible() -> None:
    plain, seen = output(), Output(stdout=Terminal(), stderr=Terminal())
    for one in (plain, seen):
        one.text("id,title\r\n1,\x1b[2J\r\n")
    assert printed(plain) == "id,title\r\n1,\x1b[2J\r\n"
    assert printed(seen) == "id,title\n1,\\u001b[2J\n"


def test_an_empty_table_says_so_in_words() -> None:
    one = output()
    one.result([], rows({"id": "Id"}, empty="No objects."))
    assert printed(one) == "No objects.\n"


def test_words_of_others_are_no_markup() -> None:
    one = output()
    one.result({"name": "[bold red]x[/] :smile:"}, fields({"name": "Name"}))
    one.result({}, line(lambda _: "[link=http://evil]y[/link]"))
    assert "[bold red]x[/] :smile:" in printed(one)
    assert "[link=http://evil]y[/link]" in printed(one)


def test_objects_are_shown_as_indented_json() -> None:
    one = output()
    one.result({"title": "Milk", "tags": ["dairy"]}, pretty)
    assert json.loads(printed(one)) == {"title": "Milk", "tags": ["dairy"]}
    assert len(printed(one).splitlines()) > 3


def test_progress_without_a_terminal_is_a_line_for_each_change() -> None:
    one = output()
    with one.progress() as progress:
        for sentence in ("Waiting …", "Waiting …", "Nearly.", "Waiting …"):
            progress(sentence)
    assert said(one).splitlines() == ["Waiting …", "Nearly.", "Waiting …"]


def test_how_much_is_done_is_not_said_where_nobody_watches() -> None:
    one = output()
    with one.progress() as progress:
        progress("Fetching …")
        for done in range(3):
            progress(f"Fetching: {done} of 3 …", done / 3)
    assert said(one) == "Fetching …\n"


def test_progress_on_a_terminal_is_a_bar_where_it_is_known_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Output(stdout=io.StringIO(), stderr=terminal).progress() as progress:
        progress("Importing: 1 of 4 \x1b …", 0.25)
    shown = terminal.getvalue()
    assert "━" in shown
    assert "Importing: 1 of 4 \\u001b …" in shown


def test_values_fit_on_one_line() -> None:
    assert [cell(one) for one in (None, True, False, 0, "a\nb", {"a": [1]})] == [
        "",
        "yes",
        "no",
        "0",
        "a\\u000ab",
        '{"a": [1]}',
    ]


def test_nouns_agree_with_their_number() -> None:
    assert [plural(count, "object") for count in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]
