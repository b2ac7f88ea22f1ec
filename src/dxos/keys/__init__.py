"""Keys, signatures, and the identifiers derived from keys."""

from dxos.keys.public_key import PublicKey
from dxos.keys.signing import Signer, SigningKey, verify

__all__ = ["PublicKey", "Signer", "SigningKey", "verify"]
