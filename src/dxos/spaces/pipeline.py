"""The control pipeline: reads a space's control feeds into one state, in an order all peers agree on.

Each block names the blocks its writer had seen (a timeframe). A block is processed when all of those have been, so a
credential never comes before the one that gave its issuer the right to issue it. A feed is read once a processed
credential has admitted it; the genesis feed is where reading starts.

Invariants
1. Every feed is processed in order and without gaps.
2. A block that cannot be decoded, or whose credential is refused, changes nothing; reading goes on behind it.
3. What is processed is on the disk: `timeframe` is never ahead of the logs.
"""

import logging
from collections.abc import Callable
from typing import final

from dxos.aio import Changes, Listeners
from dxos.errors import DxosError, NotAllowedError, PeerError
from dxos.feed.log import Log
from dxos.feed.storage import LogStorage
from dxos.feed.timeframe import Timeframe
from dxos.halo.feed_message import decode_feed_message, encode_feed_message
from dxos.halo.roles import FeedDesignation
from dxos.halo.space_state import SpaceState
from dxos.keys import PublicKey, Signer
from dxos.wire.proto.credentials_pb2 import Credential

_log = logging.getLogger(__name__)


@final
class ControlPipeline:
    """Control feeds of one space, and what they say.

    Args:
        space_key: Of the space.
        genesis_feed_key: The feed that begins with the space's genesis.
        open_storage: Where a space, given by its key, keeps the feed of a given key.
        signer: Signs blocks of the feed written here.
    """

    def __init__(
        self,
        space_key: PublicKey,
        genesis_feed_key: PublicKey,
        *,
        open_storage: Callable[[PublicKey, PublicKey], LogStorage],
        signer: Signer,
    ) -> None:
        self.state = SpaceState(space_key)
        self.feeds: dict[PublicKey, Log] = {}
        self.timeframe = Timeframe()
        self.changes = Changes()
        self.processed: Listeners[Credential] = Listeners()  # Each credential that changed the state.
        self.feed_added: Listeners[Log] = Listeners()
        self.appended: Listeners[tuple[Log, int]] = Listeners()  # A block, by its index, was written here or arrived.
        self._open_storage, self._signer = open_storage, signer
        self._writer: PublicKey | None = None
        self._add_feed(genesis_feed_key)

    def set_writer(self, feed_key: PublicKey) -> None:
        """Write to this feed from now on; its private half is in the keyring."""
        self._writer = feed_key
        self._add_feed(feed_key)

    @property
    def control_feeds(self) -> tuple[PublicKey, ...]:
        """The control feeds that the space has admitted, in order of admission."""
        return self.state.feeds_of(FeedDesignation.CONTROL)

    @property
    def can_write(self) -> bool:
        """Whether this peer has a feed that the space has admitted, or is about to write the genesis."""
        return self._writer is not None and (self.state.genesis is None or self._writer in self.control_feeds)

    def write(self, credential: Credential) -> None:
        """Append a credential to this peer's own control feed, and process it.

        Raises:
            NotAllowedError: This peer has no admitted feed here yet.
            StorageError: Nothing was written.
        """
        if self._writer is None:
            raise NotAllowedError("This device cannot write to the space yet: no member has admitted its feed.")
        log = self.feeds[self._writer]
        index = log.append(encode_feed_message(credential, tuple(self.timeframe.items())), self._signer)
        self.advance()
        self.appended.emit((log, index))

    def reload(self) -> None:
        """Read all again from the disk: a transaction in which something was written here has been undone."""
        for log in self.feeds.values():
            log.refresh()
        self.state, self.timeframe = SpaceState(self.state.space_key), Timeframe()
        self.advance()

    def advance(self) -> None:
        """Process every block that is here and whose time has come."""
        moved = True
        any_moved = False
        while moved:
            moved = False
            for key in sorted(self.feeds):
                while self._process_next(key):
                    moved = any_moved = True
        if any_moved:
            self.changes.notify()

    def downloaded(self, log: Log, index: int) -> None:
        """A block arrived from a peer: process what can be, and let other peers have it."""
        self.appended.emit((log, index))
        self.advance()

    def _process_next(self, key: PublicKey) -> bool:
        log = self.feeds[key]
        index = self.timeframe.get(key, -1) + 1
        if index >= log.contiguous:
            return False
        try:
            message = decode_feed_message(log.read(index))
        except PeerError as error:
            _log.warning("skipped block %d of feed %s: %s", index, key.truncate(), error)
            message = None
        if message is not None:
            needed = Timeframe(dict(message.timeframe))
            # A writer that names a feed nobody admitted would stall its own feed only.
            if not needed.is_reached(self.timeframe):
                return False
        self.timeframe = self.timeframe.replace(key, index)
        if message is not None and message.credential is not None:
            self._process(message.credential, key)
        return True

    def _process(self, credential: Credential, source: PublicKey) -> None:
        try:
            events = self.state.process(credential, source)
        except DxosError as error:
            _log.warning("refused a credential of feed %s: %s", source.truncate(), error)
            return
        for feed in self.control_feeds:
            self._add_feed(feed)
        for event in events:
            self.processed.emit(event.credential)

    def _add_feed(self, key: PublicKey) -> None:
        if key not in self.feeds:
            log = self.feeds[key] = Log(key, self._open_storage(self.state.space_key, key))
            self.feed_added.emit(log)

    async def wait_for_timeframe(self, target: Timeframe, *, timeout_s: float) -> None:
        """Return when everything up to `target` has been processed.

        Raises:
            DeadlineError: It was not, within `timeout_s` seconds.
        """
        await self.changes.wait_until(
            lambda: target.is_reached(self.timeframe), timeout_s=timeout_s, what="the records of the space"
        )

    def __repr__(self) -> str:
        return f"<ControlPipeline {self.state.space_key.truncate()} feeds={len(self.feeds)} {self.timeframe!r}>"
