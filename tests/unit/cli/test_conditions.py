"""Conditions as people type them, and what is said of those that are none."""

import pytest

from dxos.cli.conditions import parse_condition, parse_field
from dxos.client import F
from dxos.echo.query import And, Compare, Contains, Equals, Filter, Matches, Missing, Not, OneOf
from dxos.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year=1990", Equals(("year",), 1990)),
        ("  year  ==  1990  ", Equals(("year",), 1990)),
        ("title = The Red Tree", Equals(("title",), "The Red Tree")),
        ('title = "1990"', Equals(("title",), "1990")),
        ('title = ""', Equals(("title",), "")),
        ("title = NaN", Equals(("title",), "NaN")),
        ('tags = ["rare", 1]', Equals(("tags",), ["rare", 1])),
        ("done != true", Not(Equals(("done",), True))),
        ("index = 3", Equals(("index",), 3)),
        ("between between a and b", And((Compare(("between",), ">=", "a"), Compare(("between",), "<=", "b")))),
        ("place.shelf >= 3.5", Compare(("place", "shelf"), ">=", 3.5)),
        ("tags[0] < m", Compare(("tags", 0), "<", "m")),
        ('"a name.with dots"."b" > 1', Compare(("a name.with dots", "b"), ">", 1)),
        ("genre in novel, 7,  a play ", OneOf(("genre",), ("novel", 7, "a play"))),
        ('genre IN "a, b", c', OneOf(("genre",), ("a, b", "c"))),
        ('genre in ["a, b", null]', OneOf(("genre",), ("a, b", None))),
        ("genre not  in novel", Not(OneOf(("genre",), ("novel",)))),
        ("year between 1990 and 1999", And((Compare(("year",), ">=", 1990), Compare(("year",), "<=", 1999)))),
        ('t between "a and b" and c', And((Compare(("t",), ">=", "a and b"), Compare(("t",), "<=", "c")))),
        ("tags contains rare", Contains(("tags",), "rare")),
        ('title matches "oat milk" b*', Matches(("title",), '"oat milk" b*')),
        ("lent is null", Equals(("lent",), None)),
        ("lent is  not null", Not(Equals(("lent",), None))),
        ("lent is missing", Missing(("lent",))),
        ("lent exists", Not(Missing(("lent",)))),
        ("number startswith 12", F.number.startswith("12")),
    ],
)
def test_a_condition_is_read(text: str, expected: Filter) -> None:
    assert parse_condition(text) == expected


@pytest.mark.parametrize(
    ("text", "character", "expected"),
    [
        ("", 1, "the name of a property"),
        ("= 3", 1, "the name of a property, not '= 3'"),
        ("a. = 3", 4, "the name of a property"),
        ("year", 5, "=, !=, <"),
        ("year => 1990", 6, "is missing or exists, not '=> 1990'"),
        ("year likes 1990", 6, "not 'likes 1990'"),
        ("year isnull", 6, "not 'isnull'"),
        ("title =", 8, 'a value; "" is the empty text'),
        ('title = "The Red', 9, "JSON, which is not complete here"),
        ('title = "The" Red', 15, "quotes around the whole text, not 'Red'"),
        ("done < true", 8, "a number or a text, which have an order, not 'true'"),
        ("year between 1990", 14, "and, as in: between 1 and 9"),
        ("year between 1 and null", 20, "a number or a text"),
        ("genre in", 9, "a value"),
        ("genre in novel,", 16, "a value"),
        ('genre in ["novel"', 10, "which is not complete here"),
        ("title matches ***", 15, "words to search for, not '***'"),
        ("lent is null at all", 14, "the end, not 'at all'"),
        ("a" * 500 + " ?", 502, "is missing or exists, not '?'"),
    ],
)
def test_what_is_no_condition_is_answered_with_the_place_and_what_is_expected(
    text: str, character: int, expected: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_condition(text)
    assert f", character {character}: expected " in str(refused.value)
    assert expected in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_property_to_sort_by_is_only_a_name() -> None:
    assert repr(parse_field("place.shelf")) == "F.place.shelf"
    with pytest.raises(UsageError, match=r"--order-by 'year desc', character 6: expected the end, not 'desc'"):
        parse_field("year desc")
