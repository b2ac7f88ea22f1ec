"""Whatever is edited, delivered and sent, replicas converge, both appliers agree, and hostile bytes stay outside."""

import contextlib
import copy
from typing import Any

import pytest
from echo_peers import SPACE_KEY, MemorySource, Wire, fill, make_document_id, object_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import ValidationError, convert, to_builtins

from dxos.echo import cbor, edit, messages, sync_message
from dxos.echo.document import ROOT, Document, NodeKind, SyncState
from dxos.echo.layout import ObjectStructure, links, make_object_document, materialize, space_key_of
from dxos.echo.messages import Sync
from dxos.echo.mutation import (
    Delete,
    Insert,
    Mutation,
    Put,
    Remove,
    Splice,
    apply_to_data,
    check_value,
)
from dxos.echo.query import Query
from dxos.errors import DxosError, InvalidValueError, PeerError

MILK = object_id(1)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
keys = st.sampled_from(["a", "b", "c", "ü🚀"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6)
datas = st.dictionaries(keys, values, max_size=4)
steps = keys | st.integers(0, 3)
paths = st.lists(steps, max_size=3).map(tuple)
places = st.lists(steps, min_size=1, max_size=3).map(tuple)
small = st.integers(0, 3)
mutations = st.one_of(
    st.builds(Put, places, values),
    st.builds(Delete, places),
    st.builds(Insert, paths, small, st.lists(values, max_size=2).map(tuple)),
    st.builds(Remove, paths, small, small),
    st.builds(Splice, places, small, small, texts),
)


@settings(max_examples=400, deadline=None)
@given(datas, st.lists(mutations, max_size=6))
def test_a_document_and_a_plain_copy_change_alike(data: dict[str, Any], changes: list[Mutation]) -> None:
    document = make_object_document(SPACE_KEY, MILK, ObjectStructure(data))
    for mutation in changes:
        before = copy.deepcopy(data)
        try:
            wanted = apply_to_data(data, [mutation])
        except InvalidValueError:
            with pytest.raises(InvalidValueError):
                edit.apply(document, MILK, [mutation])
        else:
            edit.apply(document, MILK, [mutation])
            assert data == before
            data = wanted
        (row,) = materialize(document)
        assert repr(sorted_deep(row.data)) == repr(sorted_deep(data))
    assert materialize(Document.load(document.save())) == [row] if changes else True


def sorted_deep(value: Any) -> Any:
    """With map keys in one order, so that `repr`, which tells 1 from 1.0 and True, can compare."""
    if isinstance(value, dict):
        return {key: sorted_deep(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [*map(sorted_deep, value)]
    return value + 0.0 if isinstance(value, float) else value


@settings(max_examples=200, deadline=None)
@given(mutations)
def test_mutations_travel(mutation: Mutation) -> None:
    assert convert(to_builtins(mutation), Mutation) == mutation


edits = st.tuples(st.just("edit"), st.integers(0, 2), st.integers(1, 3), mutations)
adds = st.tuples(st.just("add"), st.integers(0, 2), st.just(0), st.none())
deliveries = st.tuples(st.just("deliver"), st.integers(0, 5), st.integers(0, 1), st.none())
reconnects = st.tuples(st.just("reconnect"), st.integers(0, 2), st.just(0), st.none())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(edits, adds, deliveries, deliveries, reconnects), max_size=40))
def test_three_replicas_converge(history: list[tuple[str, int, int, Mutation | None]]) -> None:
    sources = [MemorySource() for _ in range(3)]
    fill(sources[0], 3)
    pairs = [(0, 1), (1, 2), (2, 0)]
    wires = [Wire(sources[one], sources[other]) for one, other in pairs]
    added = 100
    for kind, which, other, mutation in history:
        match kind:
            case "edit":
                id_ = make_document_id(other)
                if id_ in sources[which].index and mutation is not None:
                    try:
                        edit.apply(sources[which].load(id_), object_id(other), [mutation])
                    except InvalidValueError:
                        continue
                    sources[which].changed(id_)
            case "add":
                added += 1
                fill(sources[which], 1, first=added)
            case "deliver":
                wires[which % 3].send(other)
                wires[which % 3].deliver(other)
            case "reconnect":
                wires[which].close()
                one, two = pairs[which]
                wires[which] = Wire(sources[one], sources[two])
    for _ in range(6):
        for wire in wires:
            wire.settle()
    for wire in wires:
        # Whatever was lost between the peers is found by the next comparison.
        wire.now = 31.0
        wire.settle()
    assert sources[0].rows() == sources[1].rows() == sources[2].rows()
    assert sources[0].index == sources[1].index == sources[2].index
    assert all(not queue for wire in wires for queue in wire.queues)


def ready() -> Wire:
    alice, bob = MemorySource(), MemorySource()
    fill(alice, 2)
    wire = Wire(alice, bob)
    wire.settle()
    return wire


READY = ready()


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_refused_with_an_error_of_the_tree(untrusted: bytes) -> None:
    for decode in (cbor.decode, messages.decode, sync_message.parse, Document.load_untrusted):
        with contextlib.suppress(PeerError):
            decode(untrusted)
    with contextlib.suppress(PeerError):
        READY.sessions[0].receive(untrusted, now=0.0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_altered_messages_are_refused_or_harmless(data: st.DataObject) -> None:
    wire = ready()
    source = wire.sources[0]
    document = source.load(make_document_id(1))
    edit.apply(document, object_id(1), [Put(("n",), 1)])
    source.changed(make_document_id(1))
    (message,) = wire.sessions[0].evaluate(now=0.0)
    altered = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PeerError):
        wire.sessions[1].receive(bytes(altered), now=0.0)
        wire.sessions[1].evaluate(now=0.0)
    wire.sources[1].rows()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_sync_message_is_refused_or_harmless(untrusted: bytes, number: int) -> None:
    wire = READY
    for prefix in (b"", b"\x42", b"\x43\0\0\0"):
        message = messages.encode(Sync(make_document_id(number), prefix + untrusted), sender="a", target="b")
        with contextlib.suppress(PeerError):
            wire.sessions[1].receive(message, now=0.0)
        wire.sessions[1].evaluate(now=0.0)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["objects", "access", "links", "x"]), values, max_size=4), values)
def test_a_document_of_any_shape_is_read(content: dict[str, Any], object_: Any) -> None:
    document = Document.create()
    with document.edit() as opened:
        for key, value in content.items():
            opened.put(ROOT, key, value)
        if "objects" not in content:
            opened.put(opened.make(ROOT, "objects", NodeKind.MAP), MILK, object_)
    materialize(document)
    links(document)
    space_key_of(document)


@settings(max_examples=300, deadline=None)
@given(values)
def test_cbor_travels(value: Any) -> None:
    assert cbor.decode(cbor.encode(value)) == value


anything = st.recursive(
    scalars | st.binary(max_size=3) | st.floats() | st.integers(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), v, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(anything)
def test_whatever_passes_the_check_can_be_stored(value: Any) -> None:
    try:
        check_value(value)
    except InvalidValueError:
        return
    (row,) = materialize(make_object_document(SPACE_KEY, MILK, ObjectStructure({"v": value})))
    assert row.data == {"v": value}


@settings(max_examples=300, deadline=None)
@given(anything)
def test_no_data_makes_the_decoders_of_clients_fail_otherwise(value: Any) -> None:
    for kind in (Mutation, Query):
        with contextlib.suppress(ValidationError, DxosError):
            convert(value, kind)


def test_a_fresh_state_meets_any_state() -> None:
    # One side forgets the connection's sync state, as a restarted peer does.
    one = make_object_document(SPACE_KEY, MILK, ObjectStructure({"n": 0}))
    other = Document.create()
    state = SyncState()
    for round_ in range(4):
        edit.apply(one, MILK, [Put(("n",), round_)])
        fresh = SyncState()
        for _ in range(10):
            message = one.generate_sync_message(fresh)
            if message is not None:
                other.receive_sync_message(state, message)
            answer = other.generate_sync_message(state)
            if answer is not None:
                one.receive_sync_message(fresh, answer)
            if message is None and answer is None:
                break
        assert one.heads == other.heads
