"""Having one's credentials written to a space by a member who can already write, and doing that for others.

A device that has just joined has no admitted feed, so it cannot admit its own feeds: it asks whoever is connected, one
after another, until the control pipeline shows that it was done. A JavaScript guest waits for this before it is ready.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import anyio
from google.protobuf.empty_pb2 import Empty

from dxos.aio import Changes
from dxos.errors import BrokenError, LimitError, LinkError, NotAllowedError, PeerError, ProofError
from dxos.halo.credential import assertion_of, credential_id, verify_credential
from dxos.limits import NOTARIZE_CREDENTIALS_MAX, NOTARIZE_FEEDS_MAX, NOTARIZE_RETRY_S, NOTARIZE_TIMEOUT_S
from dxos.mesh.connection import Extension, ExtensionChannel, Serve
from dxos.spaces.pipeline import ControlPipeline
from dxos.wire import from_key
from dxos.wire.proto.credentials_pb2 import AdmittedFeed, Credential
from dxos.wire.proto.notarization_pb2 import NotarizeRequest

_log = logging.getLogger(__name__)
_METHOD = "dxos.mesh.teleport.notarization.NotarizationService.Notarize"
# 0.8.3 asks its next peer without a word when an error says this.
_NO_WRITER = "WRITER_NOT_SET: this peer cannot write to the space yet"


@final
class NotarizationExtension(Extension):
    """The extension of one connection."""

    name: ClassVar[str] = "dxos.mesh.teleport.notarization"

    def __init__(self, notarization: "Notarization") -> None:
        self._notarization = notarization

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {_METHOD: Serve(NotarizeRequest, self._notarize)}

    async def _notarize(self, request: NotarizeRequest) -> Empty:
        self._notarization.write(request.credentials)
        return Empty()

    async def opened(self, channel: ExtensionChannel) -> None:
        await self._notarization.offer(channel)


@final
class Notarization:
    """Both sides of it, for one space."""

    def __init__(self, pipeline: ControlPipeline) -> None:
        self._pipeline = pipeline
        self._channels: list[ExtensionChannel] = []
        self._connected = Changes()

    def extension(self) -> NotarizationExtension:
        """What to add to a connection whose peer is authenticated."""
        return NotarizationExtension(self)

    async def offer(self, channel: ExtensionChannel) -> None:
        """Keep a channel for asking while its connection lives."""
        self._channels.append(channel)
        self._connected.notify()
        try:
            await anyio.sleep_forever()
        finally:
            self._channels.remove(channel)

    def write(self, untrusted: Sequence[Credential]) -> None:
        """Write a peer's credentials to this device's feed.

        Raises:
            NotAllowedError: This device cannot write yet, or they admit something else than a member's own feeds.
            LimitError: Too many at once.
            ProofError: One of them is not good.
        """
        if not self._pipeline.can_write:
            raise NotAllowedError(_NO_WRITER)
        if len(untrusted) > NOTARIZE_CREDENTIALS_MAX:
            raise LimitError("Too many credentials at once.", count_max=NOTARIZE_CREDENTIALS_MAX)
        for credential in untrusted:
            if verify_credential(credential) not in self._pipeline.state:
                self._check(credential)
                self._pipeline.write(credential)

    def _check(self, credential: Credential) -> None:
        """A feed, of this space, admitted by the member that writes it: nothing else is written for others."""
        assertion = assertion_of(credential)
        state = self._pipeline.state
        issuer = from_key(credential.issuer)
        if not isinstance(assertion, AdmittedFeed) or from_key(assertion.space_key) != state.space_key:
            raise NotAllowedError("Only feeds of this space are written for others.")
        if not state.is_member(issuer) or from_key(assertion.identity_key) != issuer:
            raise ProofError("A feed is admitted by the member that writes it.")
        if sum(feed.identity_key == issuer for feed in state.feeds.values()) >= NOTARIZE_FEEDS_MAX:
            raise LimitError("A member has too many feeds.", count_max=NOTARIZE_FEEDS_MAX)

    async def notarize(self, credentials: Sequence[Credential]) -> None:
        """Return when all of these have been written by some member and processed here; there is no time limit.

        Cancelling is safe: those that a peer has written by then stay written.
        """
        state = self._pipeline.state
        wanted = [credential_id(credential) for credential in credentials]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask, credentials)
            while not all(one in state for one in wanted):
                await self._pipeline.changes.wait()
            tasks.cancel_scope.cancel()

    async def _ask(self, credentials: Sequence[Credential]) -> None:
        while True:
            for channel in tuple(self._channels):
                missing = [one for one in credentials if credential_id(one) not in self._pipeline.state]
                try:
                    request = NotarizeRequest(credentials=missing)
                    await channel.call(_METHOD, request, Empty, timeout_s=NOTARIZE_TIMEOUT_S)
                except (PeerError, LinkError, BrokenError) as error:
                    _log.info("a peer did not notarize: %s", error)
                    continue
                await anyio.sleep(NOTARIZE_RETRY_S)  # What it wrote needs a moment to arrive.
            with anyio.move_on_after(NOTARIZE_RETRY_S if self._channels else None):
                await self._connected.wait()
