"""Words, phrases, and the part of a text to show."""

import pytest

from dxos import words
from dxos.errors import InvalidValueError


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ("milk", "Oat Milk"),
        ("MILK oat", "Oat Milk"),
        ("mil*", "Oat Milk"),
        ('"oat milk"', "fresh oat, milk"),
        ('"oat mi"*', "oat milk"),
        ("creme brulee", "Crème brûlée"),
        ("STRASSE", "Straße"),
        ("e-mail", "send an e mail"),
        ("tm", "x ™"),
    ],
)
def test_a_search_finds(search: str, text: str) -> None:
    assert words.found(search, {"a": ["", {"b": text}]})


@pytest.mark.parametrize(
    ("search", "text"),
    [("mil", "milk"), ('"milk oat"', "oat milk"), ("milk bread", "milk"), ("milk", "m-ilk"), ("*a", "")],
)
def test_a_search_does_not_find(search: str, text: str) -> None:
    assert not words.found(search, [text])


def test_phrases_stay_within_one_text_and_references_are_none() -> None:
    assert not words.found('"a b"', ["a", "b"])
    assert words.found("a b", ["a", "b"])
    assert not words.found("dxn", [{"/": "dxn:echo:@:A"}])
    assert words.found("dxn", [{"/": "dxn:echo:@:A", "x": 1}])


@pytest.mark.parametrize("search", ["", "*", '"" -', "a" * 5_000])
def test_a_search_without_words_or_end_is_refused(search: str) -> None:
    with pytest.raises(InvalidValueError):
        words.parse(search)


def test_a_snippet_shows_what_was_found() -> None:
    assert words.snippet("milk", ["Bread", "Oat Milk, fresh"]) == "Oat [Milk], fresh"
    long = " ".join(f"w{n}" for n in range(100))
    assert words.snippet("w50", [long]).startswith("…w42 w43")
    assert "[w50] w51" in words.snippet("w50", [long])
    assert words.snippet("none", ["a b"]) == "a b"
