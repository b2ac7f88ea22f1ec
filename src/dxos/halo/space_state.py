"""What the credentials of one space's control feeds add up to: members, feeds, epochs, delegated invitations.

Whatever is asked is computed from the set of credentials processed, so peers that have the same credentials give the
same answers; only `credentials` keeps the order in which they came.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import final

from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import DecodeError, LimitError, ProofError
from dxos.halo.credential import assertion_of, issuer_of, subject_of, verify_credential
from dxos.halo.invitation import AuthMethod
from dxos.halo.membership import MemberGraph, MemberUpdate
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.keys import PublicKey
from dxos.limits import CREDENTIALS_EARLY_MAX, FEEDS_PER_SPACE_MAX
from dxos.wire import from_key, from_timestamp
from dxos.wire.proto.credentials_pb2 import (
    AdmittedFeed,
    Credential,
    Epoch,
    MemberProfile,
    ProfileDocument,
    SpaceGenesis,
    SpaceMember,
)
from dxos.wire.proto.invitations_pb2 import CancelDelegatedInvitation, DelegateSpaceInvitation


@final
class Member(Struct, frozen=True):
    """One identity that is, or was, a member."""

    identity_key: PublicKey
    role: SpaceRole  # REMOVED if it is one no more.
    profile: ProfileDocument | None  # The last it published in this space.
    credential: Credential  # The SpaceMember credential that decides its role.


@final
class Feed(Struct, frozen=True):
    """One feed of the space."""

    feed_key: PublicKey
    designation: FeedDesignation
    identity_key: PublicKey  # Whose it is.
    device_key: PublicKey  # Which device writes it.
    credential: Credential  # The AdmittedFeed credential.
    source_feed: PublicKey  # The feed that held the credential.


@final
class SpaceEpoch(Struct, frozen=True):
    """One root document of the space."""

    id: PublicKey  # Of the credential; 32 bytes.
    number: int  # 0 or more.
    previous_id: PublicKey | None  # The epoch before.
    automerge_root: str | None  # "automerge:" and the document's id; None in spaces from before Automerge.
    timeframe: tuple[tuple[PublicKey, int], ...]
    credential: Credential


@final
class DelegatedInvitation(Struct, frozen=True):
    """An invitation that every member who may admit others can host."""

    credential_id: PublicKey  # 32 bytes.
    invitation_id: str
    auth_method: AuthMethod
    swarm_key: PublicKey
    role: SpaceRole
    guest_key: PublicKey | None  # Ed25519, for KNOWN_PUBLIC_KEY.
    expires_ms: int | None  # Unix time in milliseconds.
    multi_use: bool
    issuer: PublicKey


class Change(Enum):
    """What a processed credential is about."""

    GENESIS = auto()
    MEMBERS = auto()  # Roles; also feeds and invitations, whose validity hangs on roles.
    PROFILE = auto()
    FEED = auto()
    EPOCH = auto()
    INVITATION = auto()
    OTHER = auto()  # A credential the space only keeps: devices and profiles of a HALO space, other spaces' members.


@final
class SpaceEvent(Struct, frozen=True):
    """One credential was taken in."""

    change: Change
    id: PublicKey  # Of the credential.
    credential: Credential


@final
class SpaceState:
    """One space as its credentials tell it.

    Args:
        space_key: The space.
    """

    def __init__(self, space_key: PublicKey) -> None:
        self.space_key = space_key
        self.genesis: Credential | None = None
        self._graph = MemberGraph(space_key)
        self._credentials: dict[PublicKey, Credential] = {}
        self._feeds: dict[PublicKey, list[Feed]] = {}
        self._epochs: dict[PublicKey, SpaceEpoch] = {}
        self._profiles: dict[PublicKey, tuple[tuple[int, PublicKey], ProfileDocument]] = {}
        self._delegated: dict[PublicKey, DelegatedInvitation] = {}
        self._cancelled: dict[PublicKey, set[PublicKey]] = {}  # Invitation credential to those who cancelled it.
        # What came before the genesis, which another feed may hold.
        self._early: dict[PublicKey, tuple[Credential, PublicKey]] = {}

    # --- Processing ------------------------------------------------------------------------------------------------

    def process(
        self, untrusted: Credential, source_feed: PublicKey, *, is_verified: bool = False
    ) -> tuple[SpaceEvent, ...]:
        """Take in a credential of a control feed.

        Args:
            untrusted: The credential.
            source_feed: The feed that holds it.
            is_verified: True only for what this device stored after it had verified it: then the proof is not checked.

        Returns:
            What changed, in order: nothing for one known already, or that must wait for the genesis; more than one
            event for a genesis that others waited for.

        Raises:
            ProofError: It does not verify, or it is a second or foreign genesis.
            DecodeError: It lacks a part, or has one that does not parse.
            LimitError: More than the limits allow.
        """
        known_id = is_verified and untrusted.HasField("id")
        credential_id = from_key(untrusted.id) if known_id else verify_credential(untrusted)
        if credential_id in self._credentials or credential_id in self._early:
            return ()
        assertion = assertion_of(untrusted)
        if self.genesis is None and not isinstance(assertion, SpaceGenesis):
            if len(self._early) >= CREDENTIALS_EARLY_MAX:
                raise LimitError("Too many credentials came before the space's genesis.")
            self._early[credential_id] = (untrusted, source_feed)
            return ()
        events = [self._take(credential_id, untrusted, assertion, source_feed)]
        early, self._early = self._early, {}
        for early_id, (credential, feed) in early.items():
            try:
                events.append(self._take(early_id, credential, assertion_of(credential), feed))
            except (ProofError, DecodeError, LimitError):
                # It is not the fault of the credential that is processed now.
                continue
        return tuple(events)

    def _take(self, id: PublicKey, credential: Credential, assertion: Message, source_feed: PublicKey) -> SpaceEvent:
        match assertion:
            case SpaceGenesis():
                self._take_genesis(credential, assertion)
                change = Change.GENESIS
            case SpaceMember() if from_key(assertion.space_key) == self.space_key:
                self._graph.add(MemberUpdate.of(id, credential, assertion))
                if assertion.HasField("profile"):
                    self._take_profile(id, credential, assertion.profile)
                change = Change.MEMBERS
            case MemberProfile() if issuer_of(credential) == subject_of(credential):
                self._take_profile(id, credential, assertion.profile)
                change = Change.PROFILE
            case AdmittedFeed() if from_key(assertion.space_key) == self.space_key:
                self._take_feed(credential, assertion, source_feed)
                change = Change.FEED
            case Epoch() if subject_of(credential) == self.space_key:
                self._take_epoch(id, credential, assertion)
                change = Change.EPOCH
            case DelegateSpaceInvitation():
                self._take_delegation(id, credential, assertion)
                change = Change.INVITATION
            case CancelDelegatedInvitation():
                self._cancelled.setdefault(from_key(assertion.credential_id), set()).add(issuer_of(credential))
                change = Change.INVITATION
            case _:
                change = Change.OTHER
        self._credentials[id] = credential
        return SpaceEvent(change, id, credential)

    def _take_genesis(self, credential: Credential, assertion: SpaceGenesis) -> None:
        if self.genesis is not None:
            raise ProofError("A space has one genesis, and another came.")
        if (
            not issuer_of(credential)
            == subject_of(credential)
            == from_key(assertion.space_key)
            == from_key(credential.proof.signer)
            == self.space_key
        ):
            raise ProofError("The genesis is not this space's.")
        self.genesis = credential

    def profile_ms(self, identity_key: PublicKey) -> int:
        """When the profile of an identity that counts here was issued, as Unix time in milliseconds; 0 without one."""
        known = self._profiles.get(identity_key)
        return 0 if known is None else known[0][0]

    def _take_profile(self, id: PublicKey, credential: Credential, profile: ProfileDocument) -> None:
        subject, rank = subject_of(credential), (from_timestamp(credential.issuance_date), id)
        known = self._profiles.get(subject)
        if known is None or known[0] < rank:
            self._profiles[subject] = (rank, profile)

    def _take_feed(self, credential: Credential, assertion: AdmittedFeed, source_feed: PublicKey) -> None:
        feed = Feed(
            feed_key=subject_of(credential),
            designation=FeedDesignation.from_wire(assertion.designation),
            identity_key=from_key(assertion.identity_key),
            device_key=from_key(assertion.device_key),
            credential=credential,
            source_feed=source_feed,
        )
        if feed.feed_key not in self._feeds and len(self._feeds) >= FEEDS_PER_SPACE_MAX:
            raise LimitError("A space has too many feeds.", count_max=FEEDS_PER_SPACE_MAX)
        admissions = self._feeds.setdefault(feed.feed_key, [])
        # Whether an admission counts is known when it is asked for, so one by a stranger must not displace a member's.
        if all(issuer_of(other.credential) != issuer_of(credential) for other in admissions):
            admissions.append(feed)

    def _take_epoch(self, id: PublicKey, credential: Credential, assertion: Epoch) -> None:
        if any(frame.seq < 0 for frame in assertion.timeframe.frames):
            raise DecodeError("The timeframe of an epoch has a negative number.")
        self._epochs[id] = SpaceEpoch(
            id=id,
            number=assertion.number,
            previous_id=from_key(assertion.previous_id) if assertion.HasField("previous_id") else None,
            automerge_root=assertion.automerge_root if assertion.HasField("automerge_root") else None,
            timeframe=tuple((PublicKey(frame.feed_key), frame.seq) for frame in assertion.timeframe.frames),
            credential=credential,
        )

    def _take_delegation(self, id: PublicKey, credential: Credential, assertion: DelegateSpaceInvitation) -> None:
        try:
            auth_method = AuthMethod(assertion.auth_method)
        except ValueError:
            raise DecodeError("A delegated invitation asks for an unknown authentication.") from None
        self._delegated[id] = DelegatedInvitation(
            credential_id=id,
            invitation_id=assertion.invitation_id,
            auth_method=auth_method,
            swarm_key=from_key(assertion.swarm_key),
            role=SpaceRole.from_wire(assertion.role),
            guest_key=from_key(assertion.guest_key) if assertion.HasField("guest_key") else None,
            expires_ms=from_timestamp(assertion.expires_on) if assertion.HasField("expires_on") else None,
            multi_use=assertion.multi_use,
            issuer=issuer_of(credential),
        )

    # --- Members ---------------------------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[PublicKey, Member]:
        """All who are or were members, in order of admission."""
        return {key: self._member(update) for key, update in self._graph.members.items()}

    def member(self, identity_key: PublicKey) -> Member | None:
        """One who is or was a member."""
        update = self._graph.members.get(identity_key)
        return None if update is None else self._member(update)

    def _member(self, update: MemberUpdate) -> Member:
        profile = self._profiles.get(update.subject)
        return Member(
            identity_key=update.subject,
            role=self._graph.role(update.subject),
            profile=None if profile is None else profile[1],
            credential=update.credential,
        )

    def role(self, identity_key: PublicKey) -> SpaceRole:
        """An identity's role; REMOVED if it never was a member."""
        return self._graph.role(identity_key)

    def is_member(self, identity_key: PublicKey) -> bool:
        """Whether an identity is a member now."""
        return self._graph.role(identity_key).is_member

    def may_admit(self, issuer: PublicKey) -> bool:
        """Whether the key may change roles now."""
        return self._graph.may_admit(issuer)

    @property
    def creator(self) -> PublicKey | None:
        """The identity that made the space, or None before the genesis is known."""
        return self._graph.creator

    @property
    def member_heads(self) -> tuple[PublicKey, ...]:
        """The parents of a new SpaceMember credential."""
        return self._graph.heads

    # --- Feeds -----------------------------------------------------------------------------------------------------

    @property
    def feeds(self) -> Mapping[PublicKey, Feed]:
        """The feeds that the space's key or somebody who is or was a member made part of it, in order of arrival.

        A removed member's feeds stay: what it wrote while it was a member is part of the space.
        """
        found = {}
        for key, admissions in self._feeds.items():
            for feed in admissions:
                if self._speaks(issuer_of(feed.credential)):
                    found[key] = feed
                    break
        return found

    def feeds_of(self, designation: FeedDesignation) -> tuple[PublicKey, ...]:
        """The keys of the feeds of one designation."""
        return tuple(key for key, feed in self.feeds.items() if feed.designation is designation)

    def _speaks(self, issuer: PublicKey) -> bool:
        return issuer == self.space_key or self._graph.was_member(issuer)

    # --- Epochs, invitations, credentials --------------------------------------------------------------------------

    @property
    def epochs(self) -> tuple[SpaceEpoch, ...]:
        """The epochs that somebody who is or was a member began, by number; of equal ones the later date comes last."""
        epochs = [epoch for epoch in self._epochs.values() if self._speaks(issuer_of(epoch.credential))]
        return tuple(
            sorted(epochs, key=lambda epoch: (epoch.number, from_timestamp(epoch.credential.issuance_date), epoch.id))
        )

    @property
    def current_epoch(self) -> SpaceEpoch | None:
        """The last epoch, which names the root document."""
        epochs = self.epochs
        return epochs[-1] if epochs else None

    def delegated_invitations(self, now_ms: int) -> Mapping[PublicKey, DelegatedInvitation]:
        """The delegated invitations that still admit, by the id of their credential."""
        redeemed = {
            from_key(update.assertion.invitation_credential_id)
            for update in self._graph
            if update.assertion.HasField("invitation_credential_id") and self._graph.is_accepted(update.id)
        }
        return {
            key: invitation
            for key, invitation in self._delegated.items()
            if self.may_admit(invitation.issuer)
            and not any(map(self.may_admit, self._cancelled.get(key, ())))
            and (invitation.multi_use or key not in redeemed)
            and (invitation.expires_ms is None or invitation.expires_ms > now_ms)
        }

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """All credentials taken in, in order."""
        return tuple(self._credentials.values())

    def credential(self, id: PublicKey) -> Credential | None:
        """The credential with that id."""
        return self._credentials.get(id)

    def __contains__(self, id: object) -> bool:
        return id in self._credentials

    def __repr__(self) -> str:
        return (
            f"<SpaceState {self.space_key.truncate()} credentials={len(self._credentials)} "
            f"updates={len(self._graph)} feeds={len(self._feeds)} epochs={len(self._epochs)}>"
        )
