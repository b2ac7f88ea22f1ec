from dataclasses import dataclass

import pytest

from dxos.cli.resolve import find_id, find_space
from dxos.errors import ObjectNotFoundError, SpaceNotFoundError
from dxos.keys import PublicKey


@dataclass
class Named:
    id: str
    key: PublicKey
    name: str | None


GROCERIES = Named("BAAAA" + "Q" * 28, PublicKey(b"\x04\xab" + bytes(63)), "Groceries")
GARDEN = Named("BAABB" + "Q" * 28, PublicKey(b"\x04\xcd" + bytes(63)), "Garden")
UNNAMED = Named("BZ" + "Q" * 31, PublicKey(b"\x04\xef" + bytes(63)), None)
ALL = [GROCERIES, GARDEN, UNNAMED]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (GROCERIES.id, GROCERIES),
        (GARDEN.key.hex, GARDEN),
        ("Groceries", GROCERIES),
        ("groceries", GROCERIES),
        (" Garden ", GARDEN),
        ("BAAA", GROCERIES),
        ("baab", GARDEN),
        ("04cd", GARDEN),
        ("bz", UNNAMED),
    ],
)
def test_a_space_is_found_by_id_key_name_or_the_beginning_of_id_or_key(wanted: str, found: Named) -> None:
    assert find_space(ALL, wanted) is found


def test_a_name_comes_before_the_beginning_of_an_id() -> None:
    awkward = Named("BX" + "Q" * 31, PublicKey(b"\x04\x11" + bytes(63)), "BAAA")
    assert find_space([*ALL, awkward], "BAAA") is awkward


def test_an_ambiguous_beginning_lists_the_candidates() -> None:
    with pytest.raises(SpaceNotFoundError, match=r"2 spaces match 'BAA'.*Groceries.*Garden"):
        find_space(ALL, "BAA")


def test_a_name_that_two_spaces_have_asks_for_the_id() -> None:
    twin = Named("BY" + "Q" * 31, PublicKey(b"\x04\x22" + bytes(63)), "Garden")
    with pytest.raises(SpaceNotFoundError, match=f"use the id: .*{GARDEN.id}.*{twin.id}"):
        find_space([*ALL, twin], "Garden")


def test_an_unknown_space_lists_those_there_are() -> None:
    with pytest.raises(SpaceNotFoundError, match="No space matches 'Work'; there are: Groceries"):
        find_space(ALL, "Work")


def test_nothing_is_no_beginning() -> None:
    with pytest.raises(SpaceNotFoundError):
        find_space(ALL, "")


def test_without_any_space_the_error_says_how_to_get_one() -> None:
    with pytest.raises(SpaceNotFoundError, match="dx space create"):
        find_space([], "Groceries")


IDS = ["01AAAA", "01AABB", "02CCCC"]


def test_an_object_is_found_by_its_id_or_a_unique_beginning_in_either_case() -> None:
    assert find_id(IDS, "01AAAA") == "01AAAA"
    assert find_id(IDS, "01aab") == "01AABB"
    assert find_id(IDS, "02") == "02CCCC"


@pytest.mark.parametrize(("wanted", "message"), [("01AA", "2 objects begin"), ("03", "No object"), ("", "No object")])
def test_an_object_that_is_not_unique_or_not_there_is_an_error(wanted: str, message: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=message):
        find_id(IDS, wanted)
