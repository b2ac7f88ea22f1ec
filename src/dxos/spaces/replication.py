"""Runs the document protocol: one session for each peer, over whichever connection to it is the oldest.

Two peers may share several spaces, and have a connection for each. They speak of all documents on one of them; the
others stay in reserve, as 0.8.3 does it. A connection that ends takes the session with it: what was under way is
agreed on anew over the next.

Whose connections belong together is told by the device that each has proven. The peer id is a mere claim: by it alone,
a member of one space could take part in the session of another device, and read what that shares with us elsewhere.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, final

import anyio
import anyio.lowlevel
import anyio.to_thread
from google.protobuf.empty_pb2 import Empty

from dxos.aio import Changes, Pace, give_way, unwrap_group
from dxos.echo import messages, repo
from dxos.echo.repo import RepoSession, SharedSpace
from dxos.errors import LimitError, ProtocolError
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.limits import PEER_ID_CHARS_MAX, SYNC_CALL_TIMEOUT_S, SYNC_CALLS_MAX, SYNC_INLINE_BYTES_MAX
from dxos.mesh.connection import Extension, ExtensionChannel, Serve
from dxos.spaces.documents import Documents
from dxos.wire.proto.automerge_pb2 import PeerInfo, SyncMessage

_log = logging.getLogger(__name__)
_SERVICE = "dxos.mesh.teleport.automerge.AutomergeReplicatorService"
_START = f"{_SERVICE}.StartReplication"
_SEND = f"{_SERVICE}.SendSyncMessage"


class ReplicatedSpace(Protocol):
    """What replication must know of a space."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> PublicKey: ...
    @property
    def root_id(self) -> str | None: ...
    @property
    def earlier_root_ids(self) -> tuple[str, ...]: ...

    def role_of(self, device_key: PublicKey) -> SpaceRole:
        """The role of the identity that an authenticated device belongs to."""
        ...

    def report(self, event: repo.Event) -> None:
        """Take note of what was found out about a document of this space."""
        ...

    def sync_changed(self) -> None:
        """Take note that a peer came into step, or fell out of it."""
        ...


@final
class DocumentReplication(Extension):
    """The extension of one connection, for one space."""

    name: ClassVar[str] = "dxos.mesh.teleport.automerge"
    fatal: ClassVar[bool] = True

    def __init__(self, replicator: "Replicator", space: ReplicatedSpace) -> None:
        self.space = space
        self._replicator = replicator
        self._peer: _Peer | None = None
        self._remote_id: str | None = None
        self._started, self._attached = anyio.Event(), anyio.Event()
        self._turn = anyio.Lock(fast_acquire=True)
        self._receiving = anyio.Lock(fast_acquire=True)  # What follows a long message waits for it.
        self._pace = Pace()
        self.remote_key: PublicKey | None = None

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {_START: Serve(PeerInfo, self._start), _SEND: Serve(SyncMessage, self._receive)}

    async def opened(self, channel: ExtensionChannel) -> None:
        self.remote_key = channel.remote_key
        await channel.call(_START, PeerInfo(id=self._replicator.own_id), Empty, timeout_s=SYNC_CALL_TIMEOUT_S)
        await self._started.wait()
        assert self._remote_id is not None
        self._peer = self._replicator.attach(self, self._remote_id)
        self._attached.set()
        try:
            with unwrap_group():
                async with anyio.create_task_group() as tasks:
                    for _ in range(SYNC_CALLS_MAX):
                        tasks.start_soon(self._send, channel, self._peer)
        finally:
            self._replicator.detach(self, self._peer)

    async def _start(self, info: PeerInfo) -> Empty:
        if self._remote_id is not None:
            raise ProtocolError("Replication has started already.")
        if len(info.id) > PEER_ID_CHARS_MAX:
            raise LimitError("The peer's id is too long.", chars_max=PEER_ID_CHARS_MAX)
        self._remote_id = info.id
        self._started.set()
        return Empty()

    async def _receive(self, message: SyncMessage) -> Empty:
        async with self._receiving:  # Taken before anything is waited for: whoever waits first need not go on first.
            if self._peer is None:
                await self._attached.wait()  # Its first message may overtake the answer to our start.
                assert self._peer is not None
            if len(message.payload) <= SYNC_INLINE_BYTES_MAX:
                decoded = messages.decode(message.payload)
            else:
                decoded = await anyio.to_thread.run_sync(messages.decode, message.payload)
            self._peer.receive(decoded)
        if self._pace.is_due:  # Many messages come at once; what is done for this one is done.
            await self._pace.rest()
        return Empty()

    async def _send(self, channel: ExtensionChannel, peer: "_Peer") -> None:
        """One of several senders: each takes the next message and waits for its answer, so they stay in order."""
        while True:
            # One waits for something to say, the others for its place: a change wakes one task, not all.
            async with self._turn:
                while True:
                    # Room first: once a message is made, nothing is waited for until it is on its way.
                    await channel.wait_turn(anyio.current_time() + SYNC_CALL_TIMEOUT_S)
                    if (message := peer.next_message(self)) is not None:
                        break
                    await peer.wait(self)
            await channel.call(_SEND, SyncMessage(payload=message), Empty, timeout_s=SYNC_CALL_TIMEOUT_S)


@final
class _Peer:
    """One remote peer, and the connections to it."""

    def __init__(self, device_key: PublicKey, peer_id: str, replicator: "Replicator") -> None:
        self.identity = (device_key, peer_id)
        self._id, self._replicator = peer_id, replicator
        self.links: list[DocumentReplication] = []
        self._shared: dict[str, SharedSpace] = {}
        self._session = replicator.new_session(peer_id)
        self._outgoing: deque[bytes] = deque()
        self._changes = Changes()
        self._was_in_sync = True

    @property
    def in_sync(self) -> bool:
        return self._session.in_sync and not self._outgoing

    def share(self) -> None:
        """Share the spaces of all links, as they are now, and no others."""
        now = anyio.current_time()
        wanted: dict[str, SharedSpace] = {}
        for link in self.links:
            assert link.remote_key is not None
            role = link.space.role_of(link.remote_key)
            if role.is_member:
                space = link.space
                wanted[space.id] = SharedSpace(
                    space.id, space.key, space.root_id, role.may_write, space.earlier_root_ids
                )
        for space_id in [*self._shared]:
            if space_id not in wanted:
                self._session.unshare(space_id)
        for space_id, shared in wanted.items():
            if self._shared.get(space_id) != shared:
                self._session.share(shared, now=now)
        self._shared = wanted
        self._changed()

    def restart(self) -> None:
        """Begin anew on the next link: what the ended one had under way is unknown."""
        self._session = self._replicator.new_session(self._id)
        self._outgoing.clear()
        self._shared = {}
        self.share()

    def receive(self, message: messages.Message) -> None:
        try:
            events = self._session.take_in(message, now=anyio.current_time())
        finally:
            self._changed()
        self._report(events)

    def documents_changed(self, document_ids: tuple[str, ...]) -> None:
        for document_id in document_ids:
            self._session.document_changed(document_id)
        self._changed()

    def documents_added(self, document_ids: tuple[str, ...]) -> None:
        self._session.documents_added(document_ids)
        self._changed()

    def documents_given_up(self, document_ids: tuple[str, ...]) -> None:
        self._session.documents_given_up(document_ids)
        self._changed()

    def _changed(self) -> None:
        """There may be something to send. Said at once: the spaces are asked whether they are in sync at any time."""
        self._changes.notify()
        self._note_sync()

    def _note_sync(self) -> None:
        if self.in_sync is not self._was_in_sync:
            self._was_in_sync = not self._was_in_sync
            for one in self.links:
                one.space.sync_changed()

    def next_message(self, link: DocumentReplication) -> bytes | None:
        """The next message to send on this link, or None for now."""
        if link is not self.links[0]:
            return None
        if not self._outgoing:
            self._outgoing.extend(self._session.evaluate(now=anyio.current_time()))
            self._report(self._session.take_events())
        message = self._outgoing.popleft() if self._outgoing else None
        self._note_sync()
        return message

    async def wait(self, link: DocumentReplication) -> None:
        """Return when there may be something to send."""
        if link is self.links[0] and self._session.has_more:
            await give_way()
            return
        deadline = self._session.wake_at if link is self.links[0] else None
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline):
            await self._changes.wait()

    def _report(self, events: list[repo.Event]) -> None:
        for event in events:
            if isinstance(event, repo.DocumentFailed):
                self._replicator.documents.quarantine(event.document_id, "its bytes are damaged")
                continue
            space_id = getattr(event, "space_id", None)
            for link in self.links:
                if space_id is None or link.space.id == space_id:
                    link.space.report(event)


@final
class Replicator:
    """The sessions of this profile with all peers.

    Args:
        documents: What is replicated.
        own_id: Gives this peer's automerge-repo id; constant while the profile is open.
    """

    def __init__(self, documents: Documents, *, own_id: Callable[[], str]) -> None:
        self.documents = documents
        self._own_id = own_id
        self._peers: dict[tuple[PublicKey, str], _Peer] = {}
        documents.changed.subscribe(self._changed)
        documents.created.subscribe(self._created)
        documents.given_up.subscribe(self._given_up)

    @property
    def own_id(self) -> str:
        """The id under which peers know this one."""
        return self._own_id()

    def new_session(self, peer_id: str) -> RepoSession:
        """A fresh session with a peer."""
        return RepoSession(own_id=self.own_id, peer_id=peer_id, source=self.documents)

    def attach(self, link: DocumentReplication, peer_id: str) -> _Peer:
        """Take a connection into use."""
        assert link.remote_key is not None, "replication begins once the peer is authenticated"
        peer = self._peers.get((link.remote_key, peer_id))
        if peer is None:
            peer = _Peer(link.remote_key, peer_id, self)
            self._peers[peer.identity] = peer
        peer.links.append(link)
        peer.share()
        return peer

    def detach(self, link: DocumentReplication, peer: _Peer) -> None:
        """Forget a connection that has ended."""
        was_active = peer.links[0] is link
        peer.links.remove(link)
        if not peer.links:
            del self._peers[peer.identity]
            peer.share()  # Nothing any more: a message that is still in a worker's hands must not be taken.
        elif was_active:
            peer.restart()
        else:
            peer.share()

    def space_changed(self, space_id: str) -> None:
        """The root or the members of a space may have changed."""
        for peer in self._peers.values():
            if any(link.space.id == space_id for link in peer.links):
                peer.share()

    def in_sync(self, space_id: str, connected: Iterable[PublicKey]) -> bool:
        """Whether each of the connected devices has told what it has of the space, and neither side lacks anything."""
        peers = [peer for peer in self._peers.values() if any(link.space.id == space_id for link in peer.links)]
        return all(peer.in_sync for peer in peers) and {peer.identity[0] for peer in peers}.issuperset(connected)

    def _changed(self, document_ids: tuple[str, ...]) -> None:
        for peer in self._peers.values():
            peer.documents_changed(document_ids)

    def _created(self, document_ids: tuple[str, ...]) -> None:
        for peer in self._peers.values():
            peer.documents_added(document_ids)

    def _given_up(self, document_ids: tuple[str, ...]) -> None:
        for peer in self._peers.values():
            peer.documents_given_up(document_ids)

    def __repr__(self) -> str:
        return f"<Replicator peers={len(self._peers)}>"
