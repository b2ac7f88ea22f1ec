"""Keys, signatures, and the identifiers derived from keys."""

from typing import TYPE_CHECKING

from dxos.keys.public_key import PublicKey

if TYPE_CHECKING:
    from dxos.keys.signing import Signer, SigningKey, verify
else:

    def __getattr__(name: str) -> object:
        # Imported when first asked for: a client names keys and never signs, so it must not wait for the cryptography.
        if name not in __all__:
            raise AttributeError(f"module 'dxos.keys' has no attribute {name!r}")
        from dxos.keys import signing

        value = globals()[name] = getattr(signing, name)
        return value


__all__ = ["PublicKey", "Signer", "SigningKey", "verify"]
