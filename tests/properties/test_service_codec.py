"""Values of the service contract travel unchanged, and any bytes are either a value or a ProtocolError."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxos.echo import mutation
from dxos.echo.query import And, Equals, HasType, Order, Query
from dxos.echo.rows import ObjectRow
from dxos.errors import DxosError, InvalidValueError, NotAllowedError, ProtocolError, StorageFullError
from dxos.halo.invitation import (
    AdmissionKeypair,
    AuthMethod,
    Invitation,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.services import contract
from dxos.services.codec import codec_of
from dxos.services.methods import all_methods

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(min_size=1, max_size=4), json_values, max_size=4)
rows = st.builds(
    ObjectRow,
    object_id=st.text(max_size=26),
    kind=st.sampled_from(["object", "relation"]),
    type=st.none() | st.text(max_size=9),
    deleted=st.booleans(),
    source=st.none() | st.text(max_size=9),
    target=st.none() | st.text(max_size=9),
    meta=objects,
    data=objects,
)
heads = st.lists(st.binary(min_size=32, max_size=32), max_size=2).map(tuple)
paths = st.lists(st.text(min_size=1, max_size=4) | st.integers(0, 9), min_size=1, max_size=3).map(tuple)
mutations = (
    st.builds(mutation.Put, paths, json_values)
    | st.builds(mutation.Delete, paths)
    | st.builds(mutation.Insert, paths, st.integers(0, 9), st.lists(json_values, max_size=2).map(tuple))
    | st.builds(mutation.Remove, paths, st.integers(0, 9), st.integers(0, 9))
    | st.builds(mutation.Splice, paths, st.integers(0, 9), st.integers(0, 9), st.text(max_size=4))
    | st.builds(mutation.SetDeleted, st.booleans())
    | st.builds(mutation.SetMeta, st.text(min_size=1, max_size=4), json_values)
    | st.builds(mutation.ChangeType, st.text(max_size=4), objects, st.lists(st.text(max_size=3), max_size=2).map(tuple))
)
edits = st.builds(
    contract.Edit, st.text(max_size=26), st.none() | rows, st.lists(mutations, max_size=3).map(tuple), heads
)
states = st.builds(contract.ObjectState, rows, st.integers(0, 2**60), heads)
keys = st.binary(max_size=65).map(PublicKey)
invitations = st.builds(
    Invitation,
    invitation_id=st.text(max_size=8),
    type=st.sampled_from(InvitationType),
    kind=st.sampled_from(InvitationKind),
    auth_method=st.sampled_from(AuthMethod),
    swarm_key=keys,
    state=st.sampled_from(InvitationState),
    timeout_ms=st.none() | st.integers(0, 2**40),
    space_key=st.none() | keys,
    auth_code=st.none() | st.text(max_size=6),
    guest_keypair=st.none() | st.builds(AdmissionKeypair, keys, st.none() | st.binary(max_size=64)),
    role=st.none() | st.sampled_from(SpaceRole),
)


@given(st.lists(states, max_size=3).map(tuple))
def test_states_of_objects_come_back_equal(value: tuple[contract.ObjectState, ...]) -> None:
    codec = codec_of(tuple[contract.ObjectState, ...])
    assert codec.unpack(codec.pack(value)) == value


@given(edits)
def test_edits_come_back_equal(value: contract.Edit) -> None:
    codec = codec_of(contract.Edit)
    assert codec.unpack(codec.pack(value)) == value


@given(invitations, st.booleans(), st.integers(0, 3))
def test_invitations_come_back_equal_with_their_secrets(value: Invitation, done: bool, failures: int) -> None:
    codec = codec_of(contract.InvitationUpdate)
    update = contract.InvitationUpdate(value, None, done, failures)
    assert codec.unpack(codec.pack(update)) == update


@pytest.mark.parametrize(
    "error",
    [
        NotAllowedError("No.", space_id="B", count=3, part=0.5, final=True),
        StorageFullError("Full."),
        DxosError("Anything."),
    ],
)
def test_an_error_comes_back_as_the_same_class_with_its_detail(error: DxosError) -> None:
    codec = codec_of(DxosError)
    found = codec.unpack(codec.pack(error))
    assert type(found) is type(error)
    assert (str(found), found.detail, found.code) == (str(error), error.detail, error.code)


def test_a_query_comes_back_equal() -> None:
    query = Query(
        And((HasType("dxn:type:a"), Equals(("a", 0), [1, None]))), "include", (Order(("n",), True),), 5, 2, "x"
    )
    codec = codec_of(Query)
    assert codec.unpack(codec.pack(query)) == query


METHODS = list(all_methods().values())
CODECS = [one.arguments for one in METHODS] + [one.result if one.stream is None else one.item for one in METHODS]


def test_every_method_of_every_service_has_a_name_of_its_own_and_0_8_3_has_most_of_them() -> None:
    services = [one for one in vars(contract.Services) if not one.startswith("_")]
    assert {one.service for one in METHODS} == set(services)
    assert {"dxos.client.services.SystemService.QueryStatus", "dxos.echo.service.QueryService.ExecQuery"} <= {
        one.name for one in METHODS
    }


@given(st.sampled_from(CODECS), st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_protocol_error(codec: Any, untrusted: bytes) -> None:
    with suppress(ProtocolError):
        codec.unpack(untrusted)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 9) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(st.sampled_from(CODECS), plain)
def test_any_plain_data_is_a_value_or_a_protocol_error(codec: Any, untrusted: Any) -> None:
    content = codec_of(Any).pack(untrusted)
    try:
        found = codec.unpack(content)
    except ProtocolError:
        return
    content = codec.pack(found)
    assert codec.pack(codec.unpack(content)) == content


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800"])
def test_what_cannot_be_sent_is_refused_where_it_is_asked(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="cannot be sent"):
        codec_of(contract.JsonObject).pack({"value": value})
