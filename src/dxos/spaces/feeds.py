"""Replicates a space's control feeds over one connection, each on a stream of its own.

The initiator of the connection starts a stream for every feed it knows; the acceptor takes those it knows too, and
says when it has learned of more. Nothing is uploaded before the peer is authenticated: 0.8.3 does that, and hands the
list of members to strangers.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import anyio
from google.protobuf.empty_pb2 import Empty

from dxos.aio import Changes, unwrap_group
from dxos.errors import LinkError
from dxos.feed.log import Log
from dxos.feed.replication import Closed, CloseReason, Downloaded, Event, Replication
from dxos.keys import PublicKey
from dxos.limits import CONNECT_RETRY_S_MIN, REPLICATOR_CALL_TIMEOUT_S
from dxos.mesh.connection import Extension, ExtensionChannel, RawStream, Serve
from dxos.spaces.pipeline import ControlPipeline
from dxos.wire import from_key, to_key
from dxos.wire.proto.replicator_pb2 import (
    FeedInfo,
    StartReplicationRequest,
    StartReplicationResponse,
    StopReplicationRequest,
    UpdateFeedsRequest,
)

_log = logging.getLogger(__name__)
_SERVICE = "dxos.mesh.teleport.replicator.ReplicatorService"
_UPDATE, _START, _STOP = (f"{_SERVICE}.{name}" for name in ("UpdateFeeds", "StartReplication", "StopReplication"))
_CONTENT_TYPE = "application/x-hypercore"
_TAG_BYTES = 4


@final
class FeedReplication(Extension):
    """The extension of one connection.

    Args:
        pipeline: The feeds, and what reads them.
        random: Gives that many random bytes.
    """

    name: ClassVar[str] = "dxos.mesh.teleport.replicator"
    fatal: ClassVar[bool] = True

    def __init__(self, pipeline: ControlPipeline, *, random: Callable[[int], bytes]) -> None:
        self._pipeline, self._random = pipeline, random
        self._may_upload = False
        self._streams: dict[PublicKey, _FeedStream] = {}
        self._accepted: list[tuple[PublicKey, str]] = []  # Streams promised to the peer and not running yet.
        self._changed = Changes()
        self._changes_count = 0  # To notice changes that came while a call was waited for.

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {
            _UPDATE: Serve(UpdateFeedsRequest, self._updated),
            _START: Serve(StartReplicationRequest, self._accept),
            _STOP: Serve(StopReplicationRequest, self._stop),
        }

    def permit(self) -> None:
        """The peer is authenticated: let it have what it asks for."""
        self._may_upload = True
        for stream in self._streams.values():
            stream.permit()
        self._notify()

    def _notify(self) -> None:
        self._changes_count += 1
        self._changed.notify()

    async def _wait_for_change(self, since: int) -> None:
        """Return once there were more changes than `since`."""
        while self._changes_count == since:
            await self._changed.wait()

    async def opened(self, channel: ExtensionChannel) -> None:
        added = self._pipeline.feed_added.subscribe(lambda _: self._notify())
        appended = self._pipeline.appended.subscribe(self._appended)
        try:
            with unwrap_group():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._run_accepted, channel)
                    if channel.initiator:
                        await self._initiate(channel)
                    else:
                        await self._announce(channel)
        finally:
            added.unsubscribe()
            appended.unsubscribe()

    # --- Initiator ------------------------------------------------------------------------------------------------

    async def _initiate(self, channel: ExtensionChannel) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                seen = self._changes_count
                for key in [key for key in self._pipeline.feeds if key not in self._streams]:
                    request = StartReplicationRequest(info=self._info(key))
                    answer = await channel.call(
                        _START, request, StartReplicationResponse, timeout_s=REPLICATOR_CALL_TIMEOUT_S
                    )
                    if answer.stream_tag:
                        stream = self._open(channel, key, answer.stream_tag)
                        tasks.start_soon(self._run, stream)
                await self._wait_for_change(seen)

    async def _updated(self, request: UpdateFeedsRequest) -> Empty:
        self._notify()
        return Empty()

    # --- Acceptor -------------------------------------------------------------------------------------------------

    async def _announce(self, channel: ExtensionChannel) -> None:
        """Tell the initiator whenever there are feeds that have no stream yet."""
        while True:
            seen = self._changes_count
            feeds = [self._info(key) for key in self._pipeline.feeds]
            request = UpdateFeedsRequest(feeds=feeds)
            await channel.call(_UPDATE, request, Empty, timeout_s=REPLICATOR_CALL_TIMEOUT_S)
            await self._wait_for_change(seen)

    async def _accept(self, request: StartReplicationRequest) -> StartReplicationResponse:
        key = from_key(request.info.feed_key)
        if key not in self._pipeline.feeds or key in self._streams or key in [one for one, _ in self._accepted]:
            return StartReplicationResponse()
        tag = f"feed-{key.hex}-{self._random(_TAG_BYTES).hex()}"
        self._accepted.append((key, tag))
        self._notify()
        return StartReplicationResponse(stream_tag=tag)

    async def _run_accepted(self, channel: ExtensionChannel) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                for key, tag in self._accepted:
                    tasks.start_soon(self._run, self._open(channel, key, tag))
                self._accepted.clear()
                await self._changed.wait()

    async def _stop(self, request: StopReplicationRequest) -> Empty:
        stream = self._streams.get(from_key(request.info.feed_key))
        if stream is not None:
            stream.stop()
        return Empty()

    # --- Both -----------------------------------------------------------------------------------------------------

    def _info(self, key: PublicKey) -> FeedInfo:
        return FeedInfo(feed_key=to_key(key), download=True, upload=True)

    def _open(self, channel: ExtensionChannel, key: PublicKey, tag: str) -> "_FeedStream":
        stream = self._streams[key] = _FeedStream(
            self._pipeline.feeds[key],
            channel.open_raw(tag, _CONTENT_TYPE),
            may_upload=self._may_upload,
            downloaded=self._pipeline.downloaded,
        )
        return stream

    async def _run(self, stream: "_FeedStream") -> None:
        try:
            await stream.run()
        finally:
            self._streams.pop(stream.key, None)
        # A feed that the peer closed, or that fell silent, is tried again while the connection lives.
        await anyio.sleep(CONNECT_RETRY_S_MIN)
        self._notify()

    def _appended(self, block: tuple[Log, int]) -> None:
        log, index = block
        stream = self._streams.get(log.key)
        if stream is not None:
            stream.appended(index)  # Not the last one: of a log that is being read, the last may be still to come.


@final
class _FeedStream:
    """One feed on one stream."""

    def __init__(self, log: Log, raw: RawStream, *, may_upload: bool, downloaded: Callable[[Log, int], None]) -> None:
        self.key = log.key
        self._log, self._raw, self._downloaded = log, raw, downloaded
        self._machine = Replication(log, now=anyio.current_time(), upload=may_upload)
        self._changes = Changes()
        self._closed = False

    def permit(self) -> None:
        self._machine.permit_upload()
        self._changes.notify()

    def appended(self, index: int) -> None:
        self._machine.local_append(index)
        self._changes.notify()

    def stop(self) -> None:
        self._closed = True
        self._changes.notify()

    async def run(self) -> None:
        """Run until either side ends the stream."""
        async with self._raw, anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            await self._write()
            tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        try:
            while True:
                self._take(self._machine.receive(await self._raw.receive(), anyio.current_time()))
        except (anyio.EndOfStream, anyio.ClosedResourceError, LinkError):
            self.stop()

    async def _write(self) -> None:
        while not self._closed:
            while data := self._machine.data_to_send():
                await self._raw.send(data)
            deadline = self._machine.next_deadline
            with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline) as scope:
                await self._changes.wait()
            if scope.cancelled_caught:
                self._take(self._machine.advance(anyio.current_time()))

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Downloaded(index):
                    self._downloaded(self._log, index)
                case Closed(reason):
                    self._closed = True
                    if reason is CloseReason.IDLE:
                        _log.info("the stream of feed %s fell silent", self.key.truncate())
        self._changes.notify()
