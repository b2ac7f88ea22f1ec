"""Membership gives one answer in every order of arrival; decoders raise nothing but our errors; codes come back."""

import contextlib
import random

from halo_people import SPACE, named, update
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from dxos.errors import DxosError, InvitationCodeError, PeerError
from dxos.halo.auth import verify_auth
from dxos.halo.credential import decode_credential, verify_credential, verify_presentation
from dxos.halo.feed_message import decode_feed_message
from dxos.halo.invitation import (
    AdmissionKeypair,
    AuthMethod,
    Invitation,
    InvitationEncoder,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.halo.membership import MemberGraph, MemberUpdate
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey, ids
from dxos.keys.base62 import decode, encode
from dxos.wire import canonical, to_canonical_json, to_struct
from dxos.wire import decode as decode_message
from dxos.wire.proto.credentials_pb2 import Credential, Presentation, ProfileDocument

PEOPLE = [named(letter) for letter in "ABCDEF"]


@st.composite
def stories(draw: st.DrawFn) -> list[MemberUpdate]:
    """Credentials of anybody about anybody, on random earlier ones, in an order in which they might be made."""
    told = [update(SPACE, PEOPLE[0], SpaceRole.OWNER, issued_ms=1)]
    for _ in range(draw(st.integers(1, 14))):
        issuer = draw(st.sampled_from([*PEOPLE, SPACE]))
        subject = draw(st.sampled_from(PEOPLE))
        role = draw(st.sampled_from([SpaceRole.ADMIN, SpaceRole.ADMIN, SpaceRole.REMOVED, *SpaceRole]))
        count = draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 3))
        parents = [told[draw(st.integers(max(0, len(told) - 4), len(told) - 1))].id for _ in range(count)]
        told.append(update(issuer, subject, role, parents, issued_ms=draw(st.integers(1, 5))))
    return told


def reading(told: list[MemberUpdate]) -> tuple[object, ...]:
    graph = MemberGraph(SPACE)
    for each in told:
        graph.add(each)
    roles = [graph.role(person) for person in PEOPLE]
    return list(graph.members), roles, graph.heads, [graph.is_accepted(each.id) for each in sorted(told, key=_id)]


def _id(each: MemberUpdate) -> PublicKey:
    return each.id


@settings(max_examples=150, deadline=None)
@given(stories(), st.randoms(use_true_random=False))
def test_members_are_the_same_in_every_order_of_arrival(told: list[MemberUpdate], shuffle: random.Random) -> None:
    expected = reading(told)
    for _ in range(3):
        other = list(told)
        shuffle.shuffle(other)
        assert reading(other) == expected


@settings(max_examples=150, deadline=None)
@given(stories())
def test_reading_along_the_way_changes_nothing(told: list[MemberUpdate]) -> None:
    graph = MemberGraph(SPACE)
    for each in told:
        graph.add(each)
        assert graph.heads
    assert (list(graph.members), [graph.role(person) for person in PEOPLE]) == reading(told)[:2]


@settings(max_examples=150, deadline=None)
@given(stories())
def test_the_owner_stays_and_nobody_promotes_itself(told: list[MemberUpdate]) -> None:
    graph = MemberGraph(SPACE)
    for each in told:
        graph.add(each)
    assert graph.role(PEOPLE[0]) is SpaceRole.OWNER
    for member, decided_by in graph.members.items():
        assert decided_by.issuer != member
        assert decided_by.issuer == SPACE or graph.was_member(decided_by.issuer)
    # Without what the owner and the space did there is nobody but the owner.
    outsiders = [each for each in told[1:] if each.issuer not in (SPACE, PEOPLE[0])]
    graph = MemberGraph(SPACE)
    for each in [told[0], *(replace(each, parents=(told[0].id,)) for each in outsiders)]:
        graph.add(each)
    assert [person for person in PEOPLE if graph.role(person).is_member] == PEOPLE[:1]


KEYS = st.binary(min_size=1, max_size=65).map(PublicKey)
TIMES = st.one_of(st.none(), st.integers(0, 2**31 - 1))


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Invitation,
        invitation_id=st.text("0123456789abcdef", min_size=1, max_size=64),
        type=st.sampled_from([InvitationType.INTERACTIVE, InvitationType.DELEGATED]),
        kind=st.sampled_from(InvitationKind),
        auth_method=st.sampled_from(AuthMethod),
        swarm_key=KEYS,
        state=st.sampled_from(InvitationState),
        timeout_ms=TIMES,
        identity_key=st.one_of(st.none(), KEYS),
        space_key=st.one_of(st.none(), KEYS),
        auth_code=st.one_of(st.none(), st.text("0123456789", min_size=6, max_size=6)),
        target=st.one_of(st.none(), st.text(max_size=50)),
        persistent=st.one_of(st.none(), st.booleans()),
        created_ms=TIMES,
        lifetime_s=TIMES,
        multi_use=st.one_of(st.none(), st.booleans()),
        guest_keypair=st.one_of(st.none(), st.builds(AdmissionKeypair, KEYS, st.one_of(st.none(), st.binary()))),
        delegation_credential_id=st.one_of(st.none(), KEYS),
        role=st.one_of(st.none(), st.sampled_from(SpaceRole)),
    )
)
def test_an_invitation_comes_back_without_its_secrets(invitation: Invitation) -> None:
    if invitation.space_key is not None:
        invitation = structs.replace(invitation, space_id=ids.space_id(invitation.space_key))
    assert Invitation.from_message(invitation.to_message()) == invitation
    read = InvitationEncoder.decode(InvitationEncoder.encode(invitation))
    left_out = {
        "identity_key": None,
        "auth_code": None,
        "persistent": None,
        "multi_use": None,
        "delegation_credential_id": None,
        "role": None,
    }
    assert read == structs.replace(invitation, **left_out)


@given(st.binary(max_size=200))
def test_base62_comes_back(data: bytes) -> None:
    assert decode(encode(data)) == data


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=300), st.binary(max_size=200).map(encode)))
def test_any_text_is_an_invitation_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(InvitationCodeError):
        InvitationEncoder.decode(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_an_error_of_the_peer(data: bytes) -> None:
    for read in (
        lambda: verify_credential(decode_credential(data)),
        lambda: decode_feed_message(data),
        lambda: verify_auth(data, b"nonce"),
        lambda: verify_presentation(decode_message(Presentation, data)),
        lambda: to_canonical_json(decode_message(Credential, data)),
    ):
        with contextlib.suppress(PeerError):
            read()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_profile_can_be_signed_and_the_same_after_decoding(data: dict[str, object]) -> None:
    try:
        profile = ProfileDocument(data=to_struct(data))  # type: ignore[arg-type]
    except (DxosError, UnicodeEncodeError):
        return
    read = decode_message(ProfileDocument, profile.SerializeToString())
    assert canonical(to_canonical_json(read)) == canonical(to_canonical_json(profile))
