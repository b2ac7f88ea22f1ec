"""Invitation codes, credentials, presentations and control feed blocks that 0.8.3 made."""

import json
from pathlib import Path
from typing import Any

import pytest

from dxos.errors import PeerError, ProofError
from dxos.halo.auth import verify_auth
from dxos.halo.credential import (
    credential_payload,
    decode_credential,
    presentation_payload,
    verify_credential,
    verify_presentation,
)
from dxos.halo.feed_message import decode_feed_message, encode_feed_message
from dxos.halo.invitation import AuthMethod, InvitationEncoder, InvitationKind, InvitationType
from dxos.wire import decode, encode
from dxos.wire.proto.credentials_pb2 import Presentation

FOLDER = Path(__file__).parent
INVITATIONS: dict[str, Any] = json.loads((FOLDER / "halo_invitations.json").read_text(encoding="utf-8"))
VECTORS: dict[str, Any] = json.loads((FOLDER / "halo_credentials.json").read_text(encoding="utf-8"))
CREDENTIALS: dict[str, Any] = VECTORS["credentials"]


@pytest.mark.parametrize("name", ["b_invitation", "b_invitation_known_public_key"])
def test_an_invitation_code_is_read_and_written(name: str) -> None:
    text, decoded = INVITATIONS[name]["text"], INVITATIONS[name]["decoded"]
    invitation = InvitationEncoder.decode(text)
    assert InvitationEncoder.encode(invitation) == text
    assert invitation.invitation_id == decoded["invitationId"]
    assert invitation.type is InvitationType.INTERACTIVE
    assert invitation.kind is InvitationKind.SPACE
    assert invitation.auth_method is AuthMethod(decoded["authMethod"])
    assert invitation.swarm_key.hex == decoded["swarmKey"]
    assert invitation.space_key is not None
    assert invitation.space_key.hex == decoded["spaceKey"]
    assert invitation.space_id == decoded["spaceId"]
    assert (invitation.timeout_ms, invitation.lifetime_s) == (decoded["timeout"], decoded["lifetime"])
    assert invitation.created_ms == 1_739_956_589_123
    assert invitation.target == decoded.get("target")
    if "guestKeypair" in decoded:
        assert invitation.guest_keypair is not None
        assert invitation.guest_keypair.public_key.hex == decoded["guestKeypair"]["publicKey"]
        assert invitation.guest_keypair.private_key == bytes(decoded["guestKeypair"]["privateKey"]["data"])


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_credential_is_read_verified_and_written(name: str) -> None:
    vector = CREDENTIALS[name]
    data = bytes.fromhex(vector["protobuf"])
    credential = decode_credential(data)
    assert encode(credential) == data
    assert credential_payload(credential).decode() == vector["payload"]
    assert verify_credential(credential).hex == vector["id"]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_an_altered_credential_is_refused(name: str) -> None:
    credential = decode_credential(bytes.fromhex(CREDENTIALS[name]["protobuf"]))
    credential.proof.creation_date.seconds += 1
    with pytest.raises(ProofError):
        verify_credential(credential)


def test_no_altered_byte_changes_what_is_claimed() -> None:
    vector = CREDENTIALS["admittedFeedControl"]
    data = bytes.fromhex(vector["protobuf"])
    refused = 0
    for position in range(0, len(data), 5):
        altered = bytearray(data)
        altered[position] ^= 0x04
        try:
            credential = decode_credential(bytes(altered))
            verify_credential(credential)
        except PeerError:
            refused += 1
        else:
            # Parts of a millisecond are written but not signed.
            assert credential_payload(credential).decode() == vector["payload"]
    assert refused > 200


def test_a_presentation_is_read_and_verified() -> None:
    data = bytes.fromhex(VECTORS["presentation"]["protobuf"])
    presentation = decode(Presentation, data)
    assert encode(presentation) == data
    assert (
        presentation_payload(presentation.credentials, presentation.proofs[0]).decode()
        == (VECTORS["presentation"]["payload"])
    )
    verify_presentation(presentation)
    presentation.proofs[0].nonce = b"another"
    with pytest.raises(ProofError):
        verify_presentation(presentation)


@pytest.mark.parametrize("name", ["protobuf", "emptyTimeframe"])
def test_a_block_of_a_control_feed_is_read_and_written(name: str) -> None:
    data = bytes.fromhex(VECTORS["feed_messages"][name])
    entry = decode_feed_message(data)
    assert entry.credential is not None
    assert len(entry.timeframe) == (name == "protobuf")
    assert encode_feed_message(entry.credential, entry.timeframe) == data


def test_an_answer_to_a_challenge_is_verified() -> None:
    data = bytes.fromhex(CREDENTIALS["auth_nonce"]["protobuf"])
    credential = decode_credential(data)
    answered = verify_auth(data, credential.proof.nonce)
    assert answered.issuer != answered.device_key
    with pytest.raises(ProofError):
        verify_auth(data, bytes(32))
