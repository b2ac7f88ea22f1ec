"""Signatures: ECDSA over P-256 with SHA-256, written as 64 bytes `r` and `s` (IEEE P1363), as WebCrypto does."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from dxos.errors import CorruptionError, ProofError
from dxos.keys.public_key import PublicKey

POINT_BYTES = 65
SIGNATURE_BYTES = 64
_HALF = SIGNATURE_BYTES // 2
_ALGORITHM = ec.ECDSA(hashes.SHA256())


class Signer(Protocol):
    """Whoever can sign for some keys; the keyring, in a running program."""

    def sign(self, key: PublicKey, message: bytes) -> bytes:
        """A 64-byte signature by the private half of `key`; KeyMissingError without it."""
        ...


@final
class SigningKey:
    """A private P-256 key. Its `repr` shows the public half only."""

    __slots__ = ("_key", "public_key")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        self.public_key = PublicKey(point)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pkcs8(cls, data: bytes) -> SigningKey:
        """Read a PKCS#8 DER private key.

        Raises:
            CorruptionError: Not such a key, or of another curve.
        """
        try:
            key = serialization.load_der_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise CorruptionError("A private key does not parse.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CorruptionError("A private key is not of the curve P-256.")
        return cls(key)

    def to_pkcs8(self) -> bytes:
        """The private key in PKCS#8 DER, without a passphrase: a secret."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Sign; 64 bytes."""
        r, s = decode_dss_signature(self._key.sign(message, _ALGORITHM))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")

    def __repr__(self) -> str:
        return f"<SigningKey {self.public_key.truncate()}>"


@lru_cache(maxsize=1024)
def _load(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def verify(key: PublicKey, message: bytes, signature: bytes) -> None:
    """Check a signature.

    Args:
        key: 65 bytes, an uncompressed P-256 point.
        message: What was signed.
        signature: 64 bytes, `r` and `s`.

    Raises:
        ProofError: The signature is not by that key over that message, or either does not parse.
    """
    if len(signature) != SIGNATURE_BYTES or len(key) != POINT_BYTES:
        raise ProofError("A signature or its key has the wrong length.")
    r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
    try:
        _load(bytes(key)).verify(encode_dss_signature(r, s), message, _ALGORITHM)
    except (InvalidSignature, ValueError):
        raise ProofError("A signature does not verify.", key=key.truncate()) from None
