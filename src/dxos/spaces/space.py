"""One space, open: its records, its documents, and the connections to other members.

    CLOSED ──run──▶ CONTROL_ONLY ──▶ INITIALIZING ──root document is here──▶ READY
       ◀──────────────────────── closed ──────────────────────────────────────┘

A space that was open before is READY from its own disk, without any peer. A guest that has just been admitted waits for
the control feed, which holds its membership and names the root document, and then for that document.
"""

import contextlib
import logging
from collections.abc import Callable
from enum import Enum
from typing import final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream
from msgspec import Struct

from dxos.aio import Changes, give_way
from dxos.echo import repo
from dxos.errors import DxosError, NotAllowedError, ObjectNotFoundError, SpaceNotReadyError, StorageError
from dxos.feed.storage import LogStorage
from dxos.halo.genesis import feed_admission
from dxos.halo.issuer import Issuer
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.keys.ids import swarm_topic
from dxos.limits import COMPACT_DOCUMENTS, SHRINK_PAGES
from dxos.mesh.connection import Connection
from dxos.mesh.network import Network, Swarm
from dxos.mesh.topology import Mmst
from dxos.spaces.admission import AdmissionDiscovery
from dxos.spaces.archives import Tell
from dxos.spaces.arrivals import Arrivals
from dxos.spaces.authentication import Authentication
from dxos.spaces.documents import Documents
from dxos.spaces.epochs import Epochs, NewRoot
from dxos.spaces.feeds import FeedReplication
from dxos.spaces.gossip import Gossip
from dxos.spaces.identity import HaloIdentity
from dxos.spaces.notarization import Notarization
from dxos.spaces.pipeline import ControlPipeline
from dxos.spaces.presence import Presence
from dxos.spaces.replication import DocumentReplication, Replicator
from dxos.store.metadata import SpaceRecord
from dxos.store.profile import Profile
from dxos.wire.proto.credentials_pb2 import Credential, ProfileDocument

_log = logging.getLogger(__name__)
ACTIVE, INACTIVE = "active", "inactive"  # What a space's record says its user wants.


class State(Enum):
    """How far a space has been opened."""

    CLOSED = "closed"
    CONTROL_ONLY = "control-only"
    INITIALIZING = "initializing"
    READY = "ready"
    ERROR = "error"


@final
class SpaceContext(Struct, frozen=True):
    """What all spaces of a profile share."""

    profile: Profile
    identity: HaloIdentity
    network: Network
    documents: Documents
    replicator: Replicator
    open_storage: Callable[[PublicKey, PublicKey], LogStorage]
    random: Callable[[int], bytes]
    now_ms: Callable[[], int]
    changes: Changes  # Notified about every change of any space.


@final
class Space:
    """One space of this profile; it may be opened and closed any number of times.

    Args:
        record: What the profile keeps about it.
        context: What all spaces share.
    """

    def __init__(self, record: SpaceRecord, context: SpaceContext) -> None:
        self.id, self.key = record.space_id, record.space_key
        self.record = record
        self.state = State.CLOSED
        self.error: DxosError | None = None
        self.changes = Changes()
        self.refused_changes = 0  # Changes dropped because their sender may only read.
        self.arrivals = Arrivals()
        self.connections: dict[PublicKey, PublicKey] = {}  # Identities of authenticated devices, by device key.
        self._context = context
        self.is_running = False  # From `begin` to the end of `run`.
        self._closing = anyio.Event()
        self._swarm: Swarm | None = None
        self._barred: dict[PublicKey, PublicKey] = {}  # Identities of devices that were thrown out, by device key.
        self.pipeline = ControlPipeline(
            record.space_key,
            record.genesis_feed_key,
            open_storage=context.open_storage,
            signer=context.profile.keyring,
        )
        identity = context.identity
        self._issuer = Issuer.by_device(context.profile.keyring, identity.chain)
        self.gossip = Gossip(peer_id=identity.device_key, random=context.random, now_ms=context.now_ms)
        self.presence = Presence(
            self.gossip,
            identity_key=identity.identity_key,
            peer_id=identity.device_key,
            changed=self._notify,
        )
        self.notarization = Notarization(self.pipeline)
        self._beginning = anyio.Lock()  # Of an epoch.
        self.epochs = Epochs(self.id, self.key, context.documents, context.profile.documents)

    # --- What it is -----------------------------------------------------------------------------------------------

    @property
    def role(self) -> SpaceRole:
        """What this identity may do here."""
        return self.pipeline.state.role(self._context.identity.identity_key)

    @property
    def is_active(self) -> bool:
        """Whether the space is opened when the profile is."""
        return self.record.state == ACTIVE

    @property
    def root_id(self) -> str | None:
        """The id of the current epoch's root document, as the control feeds say."""
        epoch = self.pipeline.state.current_epoch
        url = "" if epoch is None else epoch.automerge_root or ""
        return url.removeprefix("automerge:") or None

    @property
    def earlier_root_ids(self) -> tuple[str, ...]:
        """The roots of the epochs before the current one, oldest first."""
        epochs = (epoch.automerge_root or "" for epoch in self.pipeline.state.epochs)
        roots = dict.fromkeys(root.removeprefix("automerge:") for root in epochs if root)
        # An epoch may name the same root again, as those of JavaScript without a migration.
        return tuple(one for one in roots if one != self.root_id)

    def role_of(self, device_key: PublicKey) -> SpaceRole:
        """The role of the identity that an authenticated device belongs to."""
        identity_key = self.connections.get(device_key)
        return SpaceRole.INVALID if identity_key is None else self.pipeline.state.role(identity_key)

    def is_member(self, identity_key: PublicKey) -> bool:
        """Whether an identity is a member now."""
        return self.pipeline.state.is_member(identity_key)

    async def wait_until_ready(self) -> None:
        """Return when the space can be used.

        Raises:
            DxosError: It cannot be opened.
            SpaceNotReadyError: It was closed meanwhile.
        """
        while self.state is not State.READY:
            if self.error is not None:
                raise self.error
            if self._closing.is_set():
                raise SpaceNotReadyError("The space was closed.", space_id=self.id)
            await self.changes.wait()

    def report(self, event: repo.Event) -> None:
        """Take note of what replication found out about a document."""
        match event:
            case repo.CollectionCompared():
                self.arrivals.expect(event.missing)
            case repo.DocumentReceived() | repo.DocumentUnavailable() | repo.DocumentRefused() | repo.WriteRefused():
                self.arrivals.settle(event.document_id)
        if isinstance(event, repo.WriteRefused):
            self.refused_changes += 1
        may_be_root = isinstance(event, repo.DocumentReceived) and self.state is not State.READY
        if self.arrivals.tell() or may_be_root or isinstance(event, repo.WriteRefused):
            self._notify()

    def sync_changed(self) -> None:
        """Replication with some peer came to its end, or has something to do again."""
        self._forget_arrivals()
        self._notify()

    def _forget_arrivals(self) -> None:
        # What is still missing then was announced by peers that have gone.
        if self.synced:
            self.arrivals.clear()

    @property
    def synced(self) -> bool:
        """Whether every connected peer has told what it has, and neither side lacks anything."""
        return self._context.replicator.in_sync(self.id, self.connections)

    # --- Members --------------------------------------------------------------------------------------------------

    def check_may_admit(self) -> None:
        """Raise NotAllowedError unless this identity may admit others, from this device, now."""
        if not self.role.may_admit:
            raise NotAllowedError(
                f"The role {self.role.name} does not permit inviting others or changing roles; ask an admin.",
                space_id=self.id,
            )
        if not self.pipeline.can_write:
            raise NotAllowedError(
                "This device cannot write to the space's records until another member has been online with it.",
                space_id=self.id,
            )

    def admit(self, identity_key: PublicKey, role: SpaceRole, profile: ProfileDocument | None = None) -> Credential:
        """Make an identity a member, or change its role; the credential that says so, not yet durable.

        Raises:
            NotAllowedError: This identity may not, or nobody may change that member's role.
        """
        self.check_may_admit()
        state = self.pipeline.state
        if role is SpaceRole.OWNER or state.role(identity_key) is SpaceRole.OWNER:
            raise NotAllowedError("A space's owner is who created it; nobody else becomes it, or stops being it.")
        credential = self._issuer.space_member(
            identity_key,
            role,
            space_key=self.key,
            genesis_feed_key=self.record.genesis_feed_key,
            now_ms=self._context.now_ms(),
            parents=state.member_heads,
            profile=profile,
        )
        self.pipeline.write(credential)
        if state.role(identity_key) is not role:
            raise NotAllowedError("The role of this member cannot be changed to that.", role=role.name)
        return credential

    def change_role(self, identity_key: PublicKey, role: SpaceRole) -> None:
        """Give a member another role, or take it out with REMOVED.

        Raises:
            NotAllowedError: This identity may not, or that role cannot be changed.
            ObjectNotFoundError: No such member.
        """
        member = self.pipeline.state.member(identity_key)
        if member is None:
            raise ObjectNotFoundError("No such member.", space_id=self.id)
        if identity_key == self._context.identity.identity_key:
            raise NotAllowedError("Nobody changes their own role.")
        self.admit(identity_key, role, member.profile)

    def publish_profile(self) -> None:
        """Have the members see this identity's present profile; without effect if they do, or later if it cannot be.

        It is tried again whenever the space is opened, so what the disk refuses now is not lost.
        """
        identity = self._context.identity
        member = self.pipeline.state.member(identity.identity_key)
        if member is None or not member.role.is_member or not self.is_running or not self.pipeline.can_write:
            return
        if (member.profile or ProfileDocument()) == identity.profile:
            return
        # The newest counts, by the clock of whoever issued it: the one that admitted us may be ahead of ours.
        now_ms = max(self._context.now_ms(), self.pipeline.state.profile_ms(identity.identity_key) + 1)
        try:
            self.pipeline.write(self._issuer.member_profile(identity.profile, now_ms=now_ms))
        except StorageError as error:
            _log.warning("space %s does not know the new profile yet: %s", self.id, error)

    # --- Epochs ---------------------------------------------------------------------------------------------------

    async def create_epoch(self) -> None:
        """Begin a new epoch: a root without history and without deleted objects, which are given up. Not yet durable.

        Raises:
            SpaceNotReadyError: The space is not open.
            NotAllowedError: This identity may only read, or this device cannot write to the space's records yet.
            StorageError: Nothing was written.
        """
        self._check_may_begin_epoch()
        async with self._beginning:
            while True:
                root_id = self._check_may_begin_epoch()
                made = await self.epochs.begin(root_id)
                if self._check_may_begin_epoch() == root_id:
                    break  # Otherwise a peer's epoch has come meanwhile, and this one follows it.
            self._begin_epoch(made, root_id)
            await give_way()
            with contextlib.suppress(StorageError):  # The epoch has begun all the same.
                # In a turn of its own, and not with the next change.
                self._context.documents.compact([made.document_id])
            await give_way()
        self._note_roots()
        await self.epochs.follow(may_write=self.role.may_write)

    def _check_may_begin_epoch(self) -> str:
        """The id of the root that a new epoch would replace."""
        root_id = self.root_id
        if self.state is not State.READY or root_id is None:
            raise SpaceNotReadyError("Only a space that is open can begin an epoch.", space_id=self.id)
        if not self.role.may_write:
            raise NotAllowedError("This identity may read this space, not begin an epoch.", space_id=self.id)
        if not self.pipeline.can_write:
            raise NotAllowedError(
                "This device cannot write to the space's records until another member has been online with it.",
                space_id=self.id,
            )
        return root_id

    def _begin_epoch(self, made: NewRoot, root_id: str) -> None:
        documents, last = self._context.documents, self.pipeline.state.current_epoch
        assert last is not None, "a space with a root has an epoch"
        try:
            # Whoever dies half-way has the earlier epoch, whole.
            with self._context.profile.database.transaction():
                self.epochs.keep(made)
                self.pipeline.write(
                    self._issuer.epoch(
                        self.key,
                        number=last.number + 1,
                        automerge_root=f"automerge:{made.document_id}",
                        now_ms=self._context.now_ms(),
                        previous_id=last.id,
                        timeframe=last.timeframe,
                    )
                )
                documents.set_root(self.id, made.document_id)  # At once: what is added next is linked by the new root.
        except BaseException:
            documents.discard(made.document_id)
            self.pipeline.reload()
            documents.set_root(self.id, root_id)
            raise
        documents.announce(made.document_id)
        self._context.replicator.space_changed(self.id)

    async def compact(self, tell: Tell) -> None:
        """Make one snapshot of each document, and give what is unused of the file back to the disk.

        Args:
            tell: Told how many documents are done, and of how many; not where all are compact already.

        Cancelling leaves what was done so far; nothing is lost.
        """
        database, pending = self._context.profile.database, self.epochs.uncompacted()
        roots = [one for one in pending if one == self.root_id or one in self.earlier_root_ids]
        for one in roots:
            await give_way()
            self._context.documents.compact([one])
        await give_way()
        rest = [one for one in pending if one not in roots]
        for start in range(0, len(rest), COMPACT_DOCUMENTS):
            some = rest[start : start + COMPACT_DOCUMENTS]
            self._context.documents.compact(some)
            tell(len(roots) + start + len(some), len(pending))
            await anyio.lowlevel.checkpoint()
        while database.shrink(SHRINK_PAGES):
            await anyio.lowlevel.checkpoint()

    # --- Life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Say that `run` is about to be called, so that nobody else does."""
        assert not self.is_running, "a space runs once at a time"
        self.is_running, self.error, self._closing = True, None, anyio.Event()
        self._barred.clear()

    def close(self) -> None:
        """Leave the swarm and end; `run` returns soon after."""
        self._closing.set()
        if not self.is_running:
            self.error = None
            self._enter(State.CLOSED)
        self._notify()

    async def wait_until_closed(self) -> None:
        """Return when `run` has ended, or if it does not run."""
        while self.is_running:
            await self.changes.wait()

    def _notify(self) -> None:
        self.changes.notify()
        self._context.changes.notify()

    def fail(self, error: DxosError) -> None:
        """Say that the space cannot be used, and why."""
        self.error = error
        self._enter(State.ERROR)

    async def run(self) -> None:
        """Keep the space open until `close`; after `begin`."""
        assert self.is_running, "begin comes before run"
        processed = self.pipeline.processed.subscribe(self._credential_processed)
        changed = self._context.documents.changed.subscribe(self._documents_changed)
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()  # The network may be ending: nothing is joined any more.
            async with anyio.create_task_group() as tasks:
                self._context.documents.open_space(self.key)
                self.pipeline.advance()
                if self.role.is_member and self.record.control_feed_key in self.pipeline.control_feeds:
                    self.pipeline.set_writer(self.record.control_feed_key)  # Before anybody is told of READY.
                    self.publish_profile()
                self._enter(State.CONTROL_ONLY)
                async with self._join() as self._swarm:
                    tasks.start_soon(self._follow_root)
                    tasks.start_soon(self._follow_epochs)
                    tasks.start_soon(self._admit_own_feeds)
                    tasks.start_soon(self.presence.run)
                    await self._closing.wait()
                # Connections have ended by now, so nothing of them arrives at documents that are closed.
                tasks.cancel_scope.cancel()
        finally:
            processed.unsubscribe()
            changed.unsubscribe()
            self._swarm = None
            self._context.documents.close_space(self.id)
            self.is_running = False
            self._enter(State.CLOSED)

    def _join(self) -> Swarm:
        return self._context.network.join(
            swarm_topic(self.key),
            peer=self._context.identity.device_key,
            topology=Mmst(),
            on_connection=self._connect,
        )

    async def _follow_root(self) -> None:
        """Become ready once the root document is here, and go over to a new one when an epoch names it."""
        self._enter(State.INITIALIZING)
        documents = self._context.documents
        while True:
            root_id = self.root_id
            if root_id is not None:
                if self.state is not State.READY:
                    documents.set_root(self.id, root_id)  # So that peers are asked for it.
                if documents.entry(root_id) is not None and self.role.is_member:
                    documents.set_root(self.id, root_id)
                    self._context.replicator.space_changed(self.id)
                    if self.state is not State.READY:
                        self._check_rows()
                        self._enter(State.READY)
            await self.changes.wait()

    def _check_rows(self) -> None:
        try:
            if self._context.documents.rows_are_lost(self.id):
                _log.error("queries of space %s miss objects that are here; mend it: dx doctor --repair", self.id)
        except StorageError as error:
            _log.error("space %s may be damaged; see dx doctor: %s", self.id, error)

    def _note_roots(self) -> None:
        current = self.root_id
        if current is not None:
            self.epochs.note_roots([*self.earlier_root_ids, current])

    async def _follow_epochs(self) -> None:
        """Follow the present epoch's root whenever there may be something new in earlier ones."""
        while True:
            if self.state is State.READY:
                self._note_roots()
                while self.epochs.is_due and await self.epochs.follow(may_write=self.role.may_write):
                    self._note_roots()
            await self.changes.wait()

    def _documents_changed(self, document_ids: tuple[str, ...]) -> None:
        self.epochs.note_changed(document_ids)
        if self.epochs.is_due:
            self.changes.notify()

    async def _admit_own_feeds(self) -> None:
        """Have this device's feeds admitted, so that it can write credentials; needs another member online."""
        record, identity = self.record, self._context.identity
        await self._wait_until(lambda: self.role.is_member)
        if record.control_feed_key not in self.pipeline.control_feeds:
            await self.notarization.notarize(
                feed_admission(
                    self._issuer,
                    space_key=self.key,
                    device_key=identity.device_key,
                    control_feed_key=record.control_feed_key,
                    data_feed_key=record.data_feed_key,
                    now_ms=self._context.now_ms(),
                )
            )
            await self._wait_until(lambda: record.control_feed_key in self.pipeline.control_feeds)
        self.pipeline.set_writer(record.control_feed_key)
        self.publish_profile()
        self._notify()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changes.wait()

    def _credential_processed(self, _: Credential) -> None:
        if self._swarm is not None:
            for device_key, identity_key in self.connections.items():
                if device_key not in self._barred and not self.is_member(identity_key):
                    self._barred[device_key] = identity_key
                    self._swarm.kick(device_key)
            for device_key, identity_key in tuple(self._barred.items()):
                if self.is_member(identity_key):
                    del self._barred[device_key]
                    self._swarm.unbar(device_key)
        self._context.replicator.space_changed(self.id)
        self._notify()

    def _enter(self, state: State) -> None:
        self.state = state
        self._notify()

    # --- Connections ------------------------------------------------------------------------------------------------

    async def _connect(self, stream: ByteStream, remote: PublicKey, initiator: bool) -> None:
        """One connection, from the transport's opening to its end."""
        context = self._context
        connection = Connection(
            stream,
            local_key=context.identity.device_key,
            remote_key=remote,
            initiator=initiator,
            now_ms=context.now_ms,
        )
        feeds = FeedReplication(self.pipeline, random=context.random)

        def authenticated(identity_key: PublicKey, device_key: PublicKey) -> None:
            self.connections[remote] = identity_key
            feeds.permit()
            connection.add_extension(AdmissionDiscovery(self.pipeline.state))
            connection.add_extension(self.gossip.extension())
            connection.add_extension(self.notarization.extension())
            connection.add_extension(documents)
            self.presence.connected(device_key, identity_key)
            self._notify()

        documents = DocumentReplication(context.replicator, self)
        connection.add_extension(
            Authentication(
                prove=lambda nonce: context.identity.prove(nonce, now_ms=context.now_ms()),
                is_member=self.is_member,
                changes=self.changes,
                authenticated=authenticated,
                random=context.random,
            )
        )
        connection.add_extension(feeds)
        try:
            await connection.run()
            if connection.error is not None:
                raise connection.error  # So that the swarm shows why.
        finally:
            if self.connections.pop(remote, None) is not None:
                self.presence.disconnected(remote)
            self._forget_arrivals()
            self._notify()

    def __repr__(self) -> str:
        return f"<Space {self.id[:9]} {self.state.name} connections={len(self.connections)}>"
