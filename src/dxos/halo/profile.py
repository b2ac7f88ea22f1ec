"""How an identity shows itself, and which space it uses unless told otherwise."""

from typing import final

from dxos.errors import DecodeError
from dxos.halo.credential import assertion_of
from dxos.keys import PublicKey
from dxos.keys.ids import is_space_id
from dxos.wire import from_key
from dxos.wire.proto.credentials_pb2 import Credential, DefaultSpace, IdentityProfile, ProfileDocument


@final
class ProfileState:
    """The profile and default space of one identity, from the verified credentials of its HALO space in order."""

    def __init__(self, identity_key: PublicKey) -> None:
        self._identity_key = identity_key
        self.profile: ProfileDocument | None = None  # The last one written.
        self.default_space_id: str | None = None  # The last one written.

    def process(self, credential: Credential) -> bool:
        """Take in a verified credential; whether something changed. Any not about this identity is passed over."""
        if from_key(credential.issuer) != self._identity_key or from_key(credential.subject.id) != self._identity_key:
            return False
        try:
            assertion = assertion_of(credential)
        except DecodeError:
            return False
        match assertion:
            case IdentityProfile():
                self.profile = assertion.profile
            case DefaultSpace() if is_space_id(assertion.space_id):
                self.default_space_id = assertion.space_id
            case _:
                return False
        return True

    def __repr__(self) -> str:
        return f"<ProfileState {self._identity_key.truncate()} default_space={self.default_space_id}>"
