"""How a device proves to a peer, by answering a challenge, for whom it speaks (wire reference, section F.5)."""

import hmac
from typing import Final, final

from msgspec import Struct

from dxos.errors import ProofError
from dxos.halo.credential import assertion_of, create_credential, decode_credential, verify_credential
from dxos.keys import PublicKey, Signer
from dxos.wire import encode, from_key
from dxos.wire.proto.credentials_pb2 import Auth, Credential

NONCE_BYTES: Final = 32


@final
class Authenticated(Struct, frozen=True):
    """Who answered a challenge. Whether they may enter is for the caller to decide."""

    issuer: PublicKey  # The identity in a data space, the device in a HALO space.
    device_key: PublicKey  # The key that signed.


def create_auth(
    signer: Signer,
    *,
    identity_key: PublicKey,
    device_key: PublicKey,
    chain: Credential | None,
    nonce: bytes,
    now_ms: int,
) -> bytes:
    """Answer a challenge.

    Args:
        signer: Has the private half of `device_key`.
        identity_key: The identity the device belongs to.
        device_key: The device that answers.
        chain: The device's AuthorizedDevice credential, for a data space; None for a HALO space, whose members are
            devices: the answer is then the device's own.
        nonce: The challenge, as received; 32 bytes from 0.8.3.
        now_ms: Unix time in milliseconds.

    Raises:
        ProofError: The chain is not this device's.
    """
    issuer = device_key if chain is None else identity_key
    signing_key = None if chain is None else device_key
    credential = create_credential(
        signer,
        issuer=issuer,
        subject=issuer,
        assertion=Auth(),
        now_ms=now_ms,
        signing_key=signing_key,
        chain=chain,
        nonce=nonce,
    )
    return encode(credential)


def verify_auth(untrusted: bytes, nonce: bytes) -> Authenticated:
    """Check the answer to a challenge.

    Args:
        untrusted: The answer.
        nonce: The challenge that was sent; never empty.

    Raises:
        ProofError: It answers another challenge, does not verify, or claims something else.
        DecodeError: Not a credential.
    """
    assert nonce, "an empty challenge proves nothing"
    credential = decode_credential(untrusted)
    if not isinstance(assertion_of(credential), Auth):
        raise ProofError("A credential of another kind was given as an answer to a challenge.")
    if not hmac.compare_digest(credential.proof.nonce, nonce):
        raise ProofError("An answer to another challenge.")
    verify_credential(credential)
    issuer = from_key(credential.issuer)
    if from_key(credential.subject.id) != issuer:
        raise ProofError("An answer in another's name.")
    return Authenticated(issuer, from_key(credential.proof.signer))
