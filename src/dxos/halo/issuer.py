"""Every kind of credential that an identity or device issues, by name, with the fields that 0.8.3 gives it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from google.protobuf.message import Message

from dxos.halo.credential import create_credential
from dxos.halo.invitation import AuthMethod
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.keys import PublicKey, Signer
from dxos.wire import from_key, to_key, to_timestamp
from dxos.wire.proto.credentials_pb2 import (
    AdmittedFeed,
    AuthorizedDevice,
    Credential,
    DefaultSpace,
    DeviceProfile,
    DeviceProfileDocument,
    Epoch,
    IdentityProfile,
    MemberProfile,
    ProfileDocument,
    SpaceGenesis,
    SpaceMember,
)
from dxos.wire.proto.invitations_pb2 import CancelDelegatedInvitation, DelegateSpaceInvitation
from dxos.wire.proto.timeframe_pb2 import TimeframeVector


@final
@dataclass(frozen=True, slots=True)
class Issuer:
    """A key that issues credentials: by itself, or through a device that signs for it."""

    signer: Signer  # Has the private half of `signing_key`, or of `key` without one.
    key: PublicKey  # The issuer of what is made.
    signing_key: PublicKey | None = None  # The device that signs; None: `key` signs.
    chain: Credential | None = None  # The device's AuthorizedDevice credential; given with `signing_key`.

    @classmethod
    def by_device(cls, signer: Signer, chain: Credential) -> "Issuer":
        """An identity, through the device that `chain` authorises."""
        return cls(signer, from_key(chain.issuer), from_key(chain.subject.id), chain)

    def issue(
        self,
        subject: PublicKey,
        assertion: Message,
        *,
        now_ms: int,
        nonce: bytes | None = None,
        parents: Iterable[PublicKey] = (),
    ) -> Credential:
        """Make a credential of any kind; see `create_credential`."""
        return create_credential(
            self.signer,
            issuer=self.key,
            subject=subject,
            assertion=assertion,
            now_ms=now_ms,
            signing_key=self.signing_key,
            chain=self.chain,
            nonce=nonce,
            parents=parents,
        )

    def space_genesis(self, *, now_ms: int) -> Credential:
        """The first credential of a space; this issuer is the space's key."""
        return self.issue(self.key, SpaceGenesis(space_key=to_key(self.key)), now_ms=now_ms)

    def space_member(
        self,
        member: PublicKey,
        role: SpaceRole,
        *,
        space_key: PublicKey,
        genesis_feed_key: PublicKey,
        now_ms: int,
        parents: Iterable[PublicKey] = (),
        profile: ProfileDocument | None = None,
        invitation_credential_id: PublicKey | None = None,
    ) -> Credential:
        """Admit an identity, change its role, or with REMOVED take it out.

        Args:
            member: The identity.
            role: What it may do from now on.
            space_key: The space.
            genesis_feed_key: The control feed the space began with: where a guest starts to read.
            now_ms: Unix time in milliseconds.
            parents: The heads of the membership as known here: `SpaceState.member_heads`.
            profile: How the member shows itself.
            invitation_credential_id: The delegated invitation it came by.
        """
        assertion = SpaceMember(
            space_key=to_key(space_key),
            role=role.name,
            profile=profile,
            genesis_feed_key=to_key(genesis_feed_key),
            invitation_credential_id=None if invitation_credential_id is None else to_key(invitation_credential_id),
        )
        return self.issue(member, assertion, now_ms=now_ms, parents=parents)

    def member_profile(self, profile: ProfileDocument, *, now_ms: int) -> Credential:
        """Change how this issuer, a member, shows itself in one space."""
        return self.issue(self.key, MemberProfile(profile=profile), now_ms=now_ms)

    def admitted_feed(
        self,
        feed_key: PublicKey,
        designation: FeedDesignation,
        *,
        space_key: PublicKey,
        identity_key: PublicKey,
        device_key: PublicKey,
        now_ms: int,
    ) -> Credential:
        """Make a feed part of a space.

        Args:
            feed_key: The feed.
            designation: What it carries.
            space_key: The space.
            identity_key: The identity that writes it.
            device_key: The device that writes it.
            now_ms: Unix time in milliseconds.
        """
        assertion = AdmittedFeed(
            space_key=to_key(space_key),
            identity_key=to_key(identity_key),
            device_key=to_key(device_key),
            designation=designation.name,
        )
        return self.issue(feed_key, assertion, now_ms=now_ms)

    def epoch(
        self,
        space_key: PublicKey,
        *,
        number: int,
        automerge_root: str | None,
        now_ms: int,
        previous_id: PublicKey | None = None,
        timeframe: Iterable[tuple[PublicKey, int]] = (),
    ) -> Credential:
        """Name the root document of a space from now on.

        Args:
            space_key: The space.
            number: 0, or one more than that of the epoch before.
            automerge_root: `automerge:` and the document's id.
            now_ms: Unix time in milliseconds.
            previous_id: The credential of the epoch before.
            timeframe: How far the feeds had been read.
        """
        frames = [TimeframeVector.Frame(feed_key=bytes(key), seq=sequence) for key, sequence in timeframe]
        assertion = Epoch(
            number=number,
            previous_id=None if previous_id is None else to_key(previous_id),
            timeframe=TimeframeVector(frames=frames),
            automerge_root=automerge_root,
        )
        return self.issue(space_key, assertion, now_ms=now_ms)

    def authorized_device(self, device_key: PublicKey, *, now_ms: int) -> Credential:
        """Let a device speak for this issuer, an identity."""
        assertion = AuthorizedDevice(identity_key=to_key(self.key), device_key=to_key(device_key))
        return self.issue(device_key, assertion, now_ms=now_ms)

    def device_profile(self, device_key: PublicKey, profile: DeviceProfileDocument, *, now_ms: int) -> Credential:
        """Say how a device shows itself."""
        return self.issue(device_key, DeviceProfile(profile=profile), now_ms=now_ms)

    def identity_profile(self, profile: ProfileDocument, *, now_ms: int) -> Credential:
        """Say how this issuer, an identity, shows itself."""
        return self.issue(self.key, IdentityProfile(profile=profile), now_ms=now_ms)

    def default_space(self, space_id: str, *, now_ms: int) -> Credential:
        """Say which space this issuer, an identity, uses unless told otherwise."""
        return self.issue(self.key, DefaultSpace(space_id=space_id), now_ms=now_ms)

    def delegated_invitation(
        self,
        space_key: PublicKey,
        *,
        invitation_id: str,
        auth_method: AuthMethod,
        swarm_key: PublicKey,
        role: SpaceRole,
        now_ms: int,
        guest_key: PublicKey | None = None,
        expires_ms: int | None = None,
        multi_use: bool = False,
    ) -> Credential:
        """Let every member that may admit others host an invitation."""
        assertion = DelegateSpaceInvitation(
            invitation_id=invitation_id,
            auth_method=auth_method.name,
            swarm_key=to_key(swarm_key),
            role=role.name,
            guest_key=None if guest_key is None else to_key(guest_key),
            expires_on=None if expires_ms is None else to_timestamp(expires_ms),
            multi_use=multi_use,
        )
        return self.issue(space_key, assertion, now_ms=now_ms)

    def cancel_delegated_invitation(
        self, space_key: PublicKey, invitation_credential_id: PublicKey, *, now_ms: int
    ) -> Credential:
        """Take back what `delegated_invitation` made."""
        assertion = CancelDelegatedInvitation(credential_id=to_key(invitation_credential_id))
        return self.issue(space_key, assertion, now_ms=now_ms)
