"""Keys by name and unsigned credentials, for tests of the halo machines."""

import hashlib
from collections.abc import Iterable
from itertools import count

from dxos.errors import KeyMissingError
from dxos.halo.membership import MemberUpdate
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey, SigningKey
from dxos.wire.proto.credentials_pb2 import Credential, SpaceMember


class Ring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.keys: dict[PublicKey, SigningKey] = {}

    def create(self) -> PublicKey:
        key = SigningKey.generate()
        self.keys[key.public_key] = key
        return key.public_key

    def sign(self, key: PublicKey, message: bytes) -> bytes:
        if key not in self.keys:
            raise KeyMissingError("no such key")
        return self.keys[key].sign(message)


def named(name: str) -> PublicKey:
    """The key of somebody in a story; nobody can sign with it."""
    return PublicKey(b"\x04" + hashlib.sha512(name.encode()).digest())


SPACE = named("space")
_moments = count(1_000)


def update(
    issuer: PublicKey,
    subject: PublicKey,
    role: SpaceRole = SpaceRole.ADMIN,
    parents: Iterable[PublicKey] = (),
    *,
    issued_ms: int | None = None,
) -> MemberUpdate:
    """A membership update as if verified; each is later than the one before."""
    issued_ms = next(_moments) if issued_ms is None else issued_ms
    parents = tuple(sorted(set(parents)))
    content = b"".join([bytes(issuer), bytes(subject), bytes([role]), str(issued_ms).encode(), *map(bytes, parents)])
    return MemberUpdate(
        id=PublicKey(hashlib.sha256(content).digest()),
        issuer=issuer,
        subject=subject,
        role=role,
        issued_ms=issued_ms,
        parents=parents,
        credential=Credential(),
        assertion=SpaceMember(),
    )
