"""Ed25519, used for two things only: invitations bound to a known key, and recovery keys."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dxos.errors import ProofError

SEED_BYTES = 32
SECRET_BYTES = 64  # The seed and, after it, the public key, as libsodium keeps it.


def public_key(seed: bytes) -> bytes:
    """The 32-byte public key of a 32-byte seed."""
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def sign(secret: bytes, message: bytes) -> bytes:
    """A 64-byte signature by a 64-byte secret key (seed and public key).

    Raises:
        ProofError: The secret key has another length.
    """
    if len(secret) != SECRET_BYTES:
        raise ProofError("An Ed25519 secret key has 64 bytes.")
    return Ed25519PrivateKey.from_private_bytes(secret[:SEED_BYTES]).sign(message)


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature by a 32-byte public key.

    Raises:
        ProofError: It does not verify.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise ProofError("A signature does not verify.") from None
