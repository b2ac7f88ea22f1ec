"""What invitations ask of the profile they belong to, answered by its identity and its spaces."""

from collections.abc import Awaitable, Callable
from typing import final

from dxos.errors import ProtocolError, SpaceNotFoundError
from dxos.halo.invitation import Invitation
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import space_id
from dxos.spaces.identity import IdentityKeeper
from dxos.spaces.spaces import Spaces
from dxos.wire import from_key, to_key
from dxos.wire.proto.credentials_pb2 import ProfileDocument, SpaceMember
from dxos.wire.proto.invitations_pb2 import SpaceAdmissionCredentials, SpaceAdmissionRequest


@final
class ProfileAdmissions:
    """Implements `Admissions`.

    Args:
        identity: Of the profile.
        spaces: Gives its spaces; raises IdentityMissingError before there is an identity.
        sync: Returns when what was written is durable.
    """

    def __init__(
        self, identity: IdentityKeeper, spaces: Callable[[], Spaces], sync: Callable[[], Awaitable[None]]
    ) -> None:
        self._identity, self._spaces, self._sync = identity, spaces, sync

    @property
    def identity_key(self) -> PublicKey:
        """See `Admissions`."""
        return self._identity.required.identity_key

    @property
    def peer_key(self) -> PublicKey:
        """See `Admissions`: the device's."""
        return self._identity.required.device_key

    def profile(self) -> ProfileDocument:
        """See `Admissions`."""
        return self._identity.required.profile

    def check_can_invite(self, invitation: Invitation) -> tuple[PublicKey, str]:
        """See `Admissions`."""
        space = self._spaces().ready(_space_of(invitation))
        space.check_may_admit()
        return space.key, space.id

    async def admit(
        self, request: SpaceAdmissionRequest, invitation: Invitation, profile: ProfileDocument | None
    ) -> SpaceAdmissionCredentials:
        """See `Admissions`."""
        if not request.identity_key.data:
            raise ProtocolError("The guest does not say who it is.")
        identity_key = from_key(request.identity_key)
        space = self._spaces().ready(_space_of(invitation))
        member = space.pipeline.state.member(identity_key)
        if member is not None and member.role.is_member:
            # Its link broke before our answer arrived, or it lost its profile's copy: it gets the same answer again.
            credential = member.credential
        else:
            credential = space.admit(identity_key, invitation.role or SpaceRole.EDITOR, profile)
            await self._sync()
        return SpaceAdmissionCredentials(credential=credential, control_timeframe=space.pipeline.timeframe.to_wire())

    def is_member(self, invitation: Invitation) -> bool:
        """See `Admissions`."""
        known = invitation.space_id or (None if invitation.space_key is None else space_id(invitation.space_key))
        return known is not None and self._spaces().has_joined(known)

    def admission_request(self) -> SpaceAdmissionRequest:
        """See `Admissions`."""
        identity = self._identity.required
        device_key = to_key(identity.device_key)
        return SpaceAdmissionRequest(
            identity_key=to_key(identity.identity_key),
            device_key=device_key,
            # Hosts ignore these: the feeds are made, and admitted by notarization, once the space is joined.
            control_feed_key=device_key,
            data_feed_key=device_key,
        )

    def accept(self, membership: SpaceMember) -> tuple[PublicKey, str]:
        """See `Admissions`."""
        space = self._spaces().accept(membership)
        return space.key, space.id

    def __repr__(self) -> str:
        return f"<ProfileAdmissions {self._identity!r}>"


def _space_of(invitation: Invitation) -> str:
    if invitation.space_id is not None:
        return invitation.space_id
    if invitation.space_key is None:
        raise SpaceNotFoundError("An invitation to a space names the space.")
    return space_id(invitation.space_key)
