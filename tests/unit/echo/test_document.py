import pytest

from dxos.echo import sync_message
from dxos.echo.document import MISSING, ROOT, Document, NodeKind, SyncState
from dxos.errors import CorruptionError, DecodeError, DxosError, InvalidValueError, LimitError


def note(title: str = "Milk") -> Document:
    document = Document.create()
    with document.edit() as edit:
        edit.put(ROOT, "title", title)
        edit.put(ROOT, "tags", ["dairy", 1, 1.5, None, True, {"a": ["b"]}])
    return document


def test_a_document_is_loaded_from_a_snapshot_and_the_changes_after_it() -> None:
    document = note()
    snapshot, before = document.save(), document.heads
    with document.edit() as edit:
        edit.put(ROOT, "done", True)
    loaded = Document.load(snapshot + b"".join(document.changes_since(before)))
    assert loaded.heads == document.heads
    assert loaded.to_python() == {
        "title": "Milk",
        "done": True,
        "tags": ["dairy", 1, 1.5, None, True, {"a": ["b"]}],
    }


def test_an_edit_that_raises_changes_nothing() -> None:
    document = note()
    before = document.heads

    def failing() -> None:
        with document.edit() as edit:
            edit.put(ROOT, "title", "gone")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert document.heads == before
    assert document.to_python(("title",)) == "Milk"


def test_an_edit_without_changes_makes_no_change() -> None:
    document = note()
    before = document.heads
    with document.edit():
        pass
    assert document.heads == before


def test_edits_the_library_refuses_are_invalid_values() -> None:
    document = note()
    with pytest.raises(InvalidValueError), document.edit() as edit:
        edit.put(ROOT, "", 1)
    with pytest.raises(InvalidValueError), document.edit() as edit:
        edit.insert(ROOT, 7, 1)
    assert not document.poisoned


def test_an_interrupt_passes_through() -> None:
    document = note()
    with pytest.raises(KeyboardInterrupt), document.edit():
        raise KeyboardInterrupt
    assert not document.poisoned


def test_text_positions_are_code_points() -> None:
    document = note("a🚀b")
    with document.edit() as edit:
        kind, node = edit.node(ROOT, "title") or pytest.fail("no text")
        assert kind is NodeKind.TEXT
        assert edit.length(node) == 3
        edit.splice(node, 1, 1, "Ω")
    assert document.to_python(("title",)) == "aΩb"


@pytest.mark.parametrize("path", [("none",), ("title", "x"), ("tags", 9), ("tags", "x", 1)])
def test_a_path_to_nothing_is_missing(path: tuple[str | int, ...]) -> None:
    assert note().to_python(path) is MISSING


def test_merged_copies_are_equal() -> None:
    one = note()
    other = one.fork()
    for document, name in ((one, "one"), (other, "other")):
        with document.edit() as edit:
            edit.put(ROOT, name, 1)
    one.merge(other)
    other.merge(one)
    assert one.heads == other.heads
    assert one.to_python() == other.to_python()


def test_a_fork_at_unknown_heads_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        note().fork([bytes(32)])


def test_damaged_bytes_of_our_own_are_a_corruption() -> None:
    data = note().save()
    for damaged in (data[:-5], data[:20] + b"\xff" + data[21:], b"nonsense"):
        with pytest.raises(CorruptionError):
            Document.load(damaged)


def test_damaged_bytes_of_a_peer_do_not_decode() -> None:
    data = note().save()
    for damaged in (data[:-5], data[:20] + b"\xff" + data[21:], b"nonsense"):
        with pytest.raises(DecodeError):
            Document.load_untrusted(damaged)


def test_a_sync_message_that_does_not_parse_is_refused_and_the_document_stays() -> None:
    document = note()
    before = document.heads
    for message in (b"", b"x", b"\x42", b"\x42\x01", b"\x42\0\0\0\x01\x03abc\0"):
        with pytest.raises(DecodeError):
            document.receive_sync_message(SyncState(), message)
    assert document.heads == before


def test_a_peer_that_lacks_everything_gets_it_in_the_first_message() -> None:
    document, copy, state = note(), Document.create(), SyncState()
    document.assume_peer_has(state, ())
    message = document.generate_sync_message(state) or b""
    assert sync_message.parse(message).changes_count == 1
    copy.receive_sync_message(SyncState(), message)
    assert copy.heads == document.heads


def test_a_peer_known_to_have_older_heads_gets_only_what_is_newer() -> None:
    document = note("long text " * 1_000)
    copy, before, state = document.fork(), document.heads, SyncState()
    with document.edit() as edit:
        edit.put(ROOT, "done", True)
    document.assume_peer_has(state, before)
    message = document.generate_sync_message(state) or b""
    assert len(message) < 300
    copy.receive_sync_message(SyncState(), message)
    assert copy.heads == document.heads


def test_a_message_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = note("x" * 200_000).save()
    assert len(data) < 5_000
    monkeypatch.setattr(sync_message, "DOCUMENT_BYTES_MAX", 100_000)
    with pytest.raises(LimitError):
        Document.load_untrusted(data)


def test_what_cannot_be_shown_is_left_out() -> None:
    document = note()
    with document.edit() as edit:
        edit.put(ROOT, "infinite", float("inf"))
        edit.put(ROOT, "list", [1.0, float("nan")])
    shown = document.to_python()
    assert isinstance(shown, dict)
    assert "infinite" not in shown
    assert shown["list"] == [1.0, None]


def test_deep_nesting_is_cut_off() -> None:
    document = Document.create()
    with document.edit() as edit:
        node = ROOT
        for _ in range(5_000):
            node = edit.make(node, "x", NodeKind.MAP)
    shown, depth = document.to_python(), 0
    while shown:
        assert isinstance(shown, dict)
        shown, depth = shown.get("x"), depth + 1
    assert 64 <= depth <= 100


def test_repr_is_one_short_line() -> None:
    assert repr(Document.create()) == "<Document heads=none>"
    assert len(repr(note())) < 40


def test_every_error_is_one_of_ours() -> None:
    document = note()
    document.poisoned = True
    for call in (document.save, lambda: document.heads, document.to_python, document.fork):
        with pytest.raises(DxosError):
            call()
    assert repr(document) == "<Document poisoned>"


def test_one_sound_chunk_loads_as_it_is() -> None:
    document = Document.create()
    with document.edit() as edit:
        edit.put(ROOT, "a", 1)
    (first,) = document.changes_since(())
    with document.edit() as edit:
        edit.put(ROOT, "a", 2)
    whole = document.save()
    for content in (first, whole):
        assert sync_message.is_one_sound_chunk(content)
        for at in range(len(content)):
            assert not sync_message.is_one_sound_chunk(content[:at])
            damaged = content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]
            assert not sync_message.is_one_sound_chunk(damaged)
    assert not sync_message.is_one_sound_chunk(b"".join(document.changes_since(())))
    assert not sync_message.is_one_sound_chunk(whole + first)
