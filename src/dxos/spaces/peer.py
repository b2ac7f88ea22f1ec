"""One profile in the network: storage, identity, spaces, documents and invitations, put together and taken apart.

This is the composition root of the host: everything below is made here, once, and handed what it needs.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import final

import anyio
from anyio.abc import TaskGroup

from dxos.aio import Changes, unwrap_group
from dxos.errors import IdentityMissingError
from dxos.feed.storage import LogStorage
from dxos.keys import PublicKey
from dxos.mesh.network import Network
from dxos.mesh.signal import Signal
from dxos.mesh.transport import Transport
from dxos.spaces.documents import Documents
from dxos.spaces.identity import HaloIdentity, IdentityKeeper
from dxos.spaces.invitation_admissions import ProfileAdmissions
from dxos.spaces.invitations import Invitations
from dxos.spaces.replication import Replicator
from dxos.spaces.space import SpaceContext
from dxos.spaces.spaces import Spaces
from dxos.store.feeds import FeedStore
from dxos.store.profile import Profile
from dxos.wire.proto.credentials_pb2 import DeviceProfileDocument, ProfileDocument

_log = logging.getLogger(__name__)
_PEER_KEY_BYTES = 32


@final
class Peer:
    """One profile, open; made by `open_peer`."""

    def __init__(
        self,
        profile: Profile,
        network: Network,
        tasks: TaskGroup,
        *,
        random: Callable[[int], bytes],
        now_ms: Callable[[], int],
        versions: Iterator[int] | None = None,
    ) -> None:
        self.profile, self.network = profile, network
        self._tasks, self._random, self._now_ms = tasks, random, now_ms
        feeds = FeedStore(profile.database)
        self._open_storage: Callable[[PublicKey, PublicKey], LogStorage] = feeds.open_in
        self.documents = Documents(profile, random=random, now_ms=now_ms, versions=versions)
        self.identity = IdentityKeeper(profile, open_storage=self._open_storage, now_ms=now_ms)
        self.replicator = Replicator(self.documents, own_id=lambda: f"host-{self.identity.required.device_key.hex}")
        self._spaces: Spaces | None = None
        self.changes = Changes()
        self._sync_lock = anyio.Lock()
        self._syncs_asked = self._syncs_done = 0
        admissions = ProfileAdmissions(self.identity, lambda: self.spaces, self.sync)
        self.invitations = Invitations(profile.invitations, network, admissions, tasks, random=random, now_ms=now_ms)
        if self.identity.current is not None:
            self._open_spaces(self.identity.current)

    @property
    def spaces(self) -> Spaces:
        """The spaces of the identity.

        Raises:
            IdentityMissingError: There is no identity yet.
        """
        if self._spaces is None:
            self.identity.required  # noqa: B018 - raises the error that says what to do.
            raise IdentityMissingError("The identity is being created.")
        return self._spaces

    @property
    def open_spaces(self) -> Spaces | None:
        """The spaces of the identity, or None while there is none."""
        return self._spaces

    def create_identity(self, profile: ProfileDocument, device_profile: DeviceProfileDocument) -> HaloIdentity:
        """Make the identity of this profile.

        Raises:
            IdentityExistsError: There is one already.
        """
        identity = self.identity.create(profile, device_profile)
        self._open_spaces(identity)
        self.changes.notify()
        return identity

    def _open_spaces(self, identity: HaloIdentity) -> None:
        self._spaces = Spaces(
            SpaceContext(
                self.profile,
                identity,
                self.network,
                self.documents,
                self.replicator,
                self._open_storage,
                self._random,
                self._now_ms,
                self.changes,
            ),
            self._tasks,
        )
        self._spaces.open_all()

    async def update_profile(self, profile: ProfileDocument) -> None:
        """Replace the identity's profile, and have the members of its open spaces see it.

        Raises:
            IdentityMissingError: There is no identity.
        """
        self.identity.update_profile(profile)
        for space in self.spaces.all.values():
            space.publish_profile()
        await self.sync()

    async def sync(self) -> None:
        """Return when everything written before is durable on the disk.

        Raises:
            StorageError: The disk does not take it.
        """
        if self.profile.path is None:
            return
        # One wait for the disk serves everybody who asked before it began.
        self._syncs_asked += 1
        ticket = self._syncs_asked
        async with self._sync_lock:
            if self._syncs_done < ticket:
                serving = self._syncs_asked
                await anyio.to_thread.run_sync(self.profile.sync)
                self._syncs_done = serving

    async def close(self) -> None:
        """Close the profile, when nobody waits for the disk: that is in a thread, of whoever asked for it."""
        with anyio.CancelScope(shield=True):
            async with self._sync_lock:
                self.profile.close()

    def present(self, ids: Sequence[PublicKey], nonce: bytes | None) -> bytes:
        """An encoded presentation of credentials of the HALO space, signed by this device."""
        return self.identity.required.present(ids, nonce, now_ms=self._now_ms())

    def __repr__(self) -> str:
        return f"<Peer {self.identity.current!r}>"


@asynccontextmanager
async def open_peer(
    profile: Profile,
    *,
    signal: Signal,
    transport: Transport,
    random: Callable[[int], bytes],
    now_ms: Callable[[], int],
    leadership_id: int = 0,
    leads_again: bool = False,
    versions: Iterator[int] | None = None,
) -> AsyncIterator[Peer]:
    """Open a profile and keep it in the network while the block runs; the profile is closed at the end.

    Args:
        profile: Open; nobody else uses it.
        signal: How peers are found.
        transport: How they are connected.
        random: Gives that many random bytes, good enough for secrets.
        now_ms: Unix time in milliseconds.
        leadership_id: Of this host among all that have had the profile; 0 where nobody outlives a host.
        leads_again: This host had the profile under that number before.
        versions: Of objects; they grow, also over hosts that the same clients outlive. None: from 1.

    Raises:
        FencedError: A host with a higher one has had the profile.
    """
    peer = None
    try:
        if leadership_id:
            profile.database.lead(leadership_id, again=leads_again)
        with unwrap_group():
            async with (
                Network(signal=signal, transport=transport, random=random) as network,
                anyio.create_task_group() as tasks,
            ):
                peer = Peer(profile, network, tasks, random=random, now_ms=now_ms, versions=versions)
                peer.invitations.resume()
                yield peer
                tasks.cancel_scope.cancel()
    finally:
        if peer is None:
            profile.close()
        else:
            await peer.close()
