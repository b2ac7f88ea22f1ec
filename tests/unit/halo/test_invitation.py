"""What people paste as an invitation, and what an invitation shows of itself."""

import pytest
from msgspec.structs import replace

from dxos.errors import DecodeError, InvitationCodeError
from dxos.halo.invitation import (
    AdmissionKeypair,
    AuthMethod,
    Invitation,
    InvitationEncoder,
    InvitationKind,
    InvitationState,
    InvitationType,
)
from dxos.keys import PublicKey
from dxos.keys.base62 import encode as encode_base62
from dxos.keys.ids import space_id
from dxos.limits import INVITATION_CODE_CHARS_MAX
from dxos.wire import encode

INVITATION = Invitation(
    invitation_id="ab" * 32,
    type=InvitationType.INTERACTIVE,
    kind=InvitationKind.SPACE,
    auth_method=AuthMethod.SHARED_SECRET,
    swarm_key=PublicKey(b"s" * 32),
    auth_code="123456",
    guest_keypair=AdmissionKeypair(PublicKey(b"g" * 32), b"SECRET" * 10),
    created_ms=1_000,
    lifetime_s=60,
)
CODE = InvitationEncoder.encode(INVITATION)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"  {CODE}\n",
        f"https://example.org/?spaceInvitationCode={CODE}",
        f"https://example.org/?deviceInvitationCode={CODE}&theme=dark",
        f"https://example.org/#/join?invitation={CODE}",
        f"https://example.org/?haloInvitationCode={CODE}",
        f"invitationCode={CODE}",
    ],
)
def test_a_code_is_found_in_what_people_paste(text: str) -> None:
    assert InvitationEncoder.decode(text) == replace(INVITATION, auth_code=None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("hello world", "letters and digits"),
        ("https://example.org/", "no invitation code"),
        ("https://[::1/?invitation=a", "does not parse"),
        (CODE[:-20], "Copy it once more"),
        (CODE[5:], "Copy it once more"),
        ("1" * (INVITATION_CODE_CHARS_MAX + 1), "too long"),
        ("0", "Copy it once more"),
    ],
)
def test_a_wrong_code_is_refused_with_a_sentence_that_helps(text: str, says: str) -> None:
    with pytest.raises(InvitationCodeError, match=says):
        InvitationEncoder.decode(text)


def test_a_code_without_swarm_key_is_refused() -> None:
    message = INVITATION.to_message()
    message.ClearField("swarm_key")
    with pytest.raises(InvitationCodeError, match="swarm key"):
        InvitationEncoder.decode(encode_base62(encode(message)))


def test_a_code_whose_space_id_is_not_that_of_its_key_is_refused() -> None:
    other = replace(INVITATION, space_key=PublicKey(b"a" * 65), space_id=space_id(PublicKey(b"b" * 65)))
    with pytest.raises(InvitationCodeError, match="space id"):
        InvitationEncoder.decode(InvitationEncoder.encode(other))


def test_secrets_that_should_not_be_in_a_code_are_not_read_from_it() -> None:
    read = InvitationEncoder.decode(encode_base62(encode(INVITATION.to_message())))
    assert read.auth_code is None


def test_the_old_type_of_many_uses_is_read_as_interactive() -> None:
    read = InvitationEncoder.decode(InvitationEncoder.encode(replace(INVITATION, type=InvitationType.MULTIUSE)))
    assert (read.type, read.multi_use) == (InvitationType.INTERACTIVE, True)


@pytest.mark.parametrize("field", ["type", "kind", "auth_method", "state", "role"])
def test_an_unknown_number_is_refused(field: str) -> None:
    message = INVITATION.to_message()
    setattr(message, field, 77)
    with pytest.raises(DecodeError):
        Invitation.from_message(message)


@pytest.mark.parametrize("field", ["timeout", "lifetime"])
def test_a_negative_time_is_refused(field: str) -> None:
    message = INVITATION.to_message()
    setattr(message, field, -1)
    with pytest.raises(DecodeError):
        Invitation.from_message(message)


def test_an_invitation_expires() -> None:
    assert INVITATION.expires_ms == 61_000
    assert not INVITATION.is_expired(60_999)
    assert INVITATION.is_expired(61_000)
    assert replace(INVITATION, lifetime_s=0).expires_ms is None


def test_its_repr_has_no_secrets() -> None:
    assert repr(INVITATION) == "<Invitation abababab SPACE INTERACTIVE SHARED_SECRET INIT>"
    assert "SECRET" not in repr(INVITATION.guest_keypair)
    assert INVITATION.authentication_code == "123456"


def test_states_that_are_final() -> None:
    assert [state for state in InvitationState if state.is_final] == [
        InvitationState.SUCCESS,
        InvitationState.CANCELLED,
        InvitationState.TIMEOUT,
        InvitationState.ERROR,
        InvitationState.EXPIRED,
    ]
