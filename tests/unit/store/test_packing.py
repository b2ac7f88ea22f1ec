"""Snapshots packed with what their space has in common."""

import random

import pytest

from dxos.errors import CorruptionError
from dxos.limits import PACKED_DICTIONARIES_MAX
from dxos.store.database import Database
from dxos.store.packing import Packing


def snapshot(number: int) -> bytes:
    common = bytes(range(250)) + b"what all documents of a space have in common"
    return b"\x85\x6f\x4a\x83" + common + bytes([number])


@pytest.fixture
def database() -> Database:
    return Database(None)


def test_the_second_snapshot_of_a_kind_takes_little_and_comes_back_as_it_was(database: Database) -> None:
    packing = Packing(database)
    packed = [packing.pack(1, snapshot(number)) for number in range(5)]
    assert all(len(one) < 30 for one in packed)
    assert [packing.unpack(one) for one in packed] == [snapshot(number) for number in range(5)]
    assert [Packing(database).unpack(one) for one in packed] == [snapshot(number) for number in range(5)]
    assert database.row("SELECT count(*) FROM dictionaries") == (1,)


def test_a_space_of_all_sorts_takes_no_time_for_nothing_and_still_finds_its_kinds(database: Database) -> None:
    packing, chance = Packing(database), random.Random(7)
    known = packing.pack(1, snapshot(0))
    assert len(known) < 30
    for _ in range(100):
        strange = b"\x85" + chance.randbytes(200)
        assert packing.unpack(packing.pack(1, strange)) == strange
    assert database.row("SELECT count(*) FROM dictionaries") == (PACKED_DICTIONARIES_MAX,)
    packed = [packing.pack(1, snapshot(number)) for number in range(20)]
    assert [packing.unpack(one) for one in packed] == [snapshot(number) for number in range(20)]
    assert sum(len(one) < 30 for one in packed) >= 4, "after a few the kind is found again"
    assert len(packed[-1]) < 30


def test_what_is_large_stays_as_it_is_and_what_was_not_packed_is_returned(database: Database) -> None:
    packing, large = Packing(database), b"\x85" + bytes(100_000)
    assert packing.pack(1, large) == large
    assert packing.unpack(large) == large


def test_spaces_have_dictionaries_of_their_own_and_each_kind_has_one(database: Database) -> None:
    packing = Packing(database)
    for space in (1, 2):
        packing.pack(space, snapshot(1))
        packing.pack(space, b"\x85" + bytes(reversed(range(256))))
    assert database.rows("SELECT space, count(*) FROM dictionaries GROUP BY space") == [(1, 2), (2, 2)]


def test_a_dictionary_that_was_not_stored_in_the_end_is_not_used(database: Database) -> None:
    packing = Packing(database)

    def fail() -> None:
        with database.transaction():
            packing.pack(1, snapshot(1))
            packing.pack(1, snapshot(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    packed = packing.pack(1, snapshot(3))
    assert packing.unpack(packed) == snapshot(3)


def test_a_damaged_dictionary_is_replaced_by_its_copy_and_two_are_corruption(database: Database) -> None:
    packed = Packing(database).pack(1, snapshot(1))
    database.run("UPDATE dictionaries SET bytes = x'00'")
    assert Packing(database).unpack(packed) == snapshot(1)
    database.run("UPDATE dictionaries SET copy = x'00'")
    with pytest.raises(CorruptionError):
        Packing(database).unpack(packed)


def test_a_damaged_packed_document_is_corruption(database: Database) -> None:
    packing = Packing(database)
    packing.pack(1, snapshot(1))
    packed = packing.pack(1, snapshot(2))
    for damaged in (packed[:-3], packed[:5] + b"\xff" + packed[6:], b"Z", b"Z\0\0\0\x63" + packed[5:]):
        with pytest.raises(CorruptionError):
            packing.unpack(damaged)
