"""The services for looking inside a host: its log, its storage and its network."""

import logging
from collections.abc import Callable
from typing import Final, final

import anyio.lowlevel

from dxos.aio import Subscription
from dxos.limits import LOG_MESSAGE_CHARS_MAX
from dxos.services.contract import LogEntry, LogLevel, Next, StorageInfo, SwarmInfo
from dxos.spaces.peer import Peer

_ROOT: Final = "dxos"
_MS_PER_S: Final = 1_000


@final
class LoggingServiceHost:
    """Implements `LoggingService`, for the loggers of this package."""

    def query_logs(self, level: LogLevel, next: Next[LogEntry]) -> Subscription:
        handler = _Handler(level, next)
        logger = logging.getLogger(_ROOT)
        logger.addHandler(handler)
        return Subscription(lambda: logger.removeHandler(handler))


@final
class _Handler(logging.Handler):
    def __init__(self, level: LogLevel, next: Callable[[LogEntry], None]) -> None:
        super().__init__(level.value)
        self._next, self._telling = next, False

    def emit(self, record: logging.LogRecord) -> None:
        if self._telling:
            return  # About the telling itself.
        known = [one for one in LogLevel if one.value <= record.levelno]
        level = known[-1] if known else LogLevel.DEBUG
        message = record.getMessage()[:LOG_MESSAGE_CHARS_MAX]
        self._telling = True
        try:
            self._next(LogEntry(level, record.name, message, int(record.created * _MS_PER_S)))
        finally:
            self._telling = False


@final
class DevtoolsServiceHost:
    """Implements `DevtoolsHost`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def get_storage_info(self) -> StorageInfo:
        await anyio.lowlevel.checkpoint()
        database = self._peer.profile.database
        return StorageInfo(database.file_bytes, database.free_bytes, database.wal_bytes)

    def subscribe_to_swarm_info(self, next: Next[tuple[SwarmInfo, ...]]) -> Subscription:
        next(self._swarms())
        return Subscription(self._peer.network.subscribe(lambda _: next(self._swarms())))

    def _swarms(self) -> tuple[SwarmInfo, ...]:
        swarms = self._peer.network.swarms
        return tuple(SwarmInfo(topic, tuple(sorted(swarm.connected))) for topic, swarm in swarms.items())
