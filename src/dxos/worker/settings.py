"""What a worker needs to know of the settings of the client for which it is started."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """Settings, as they travel between processes."""

    signal_servers: tuple[str, ...] = ()  # WebSocket URLs.
    backup_passphrase: str | None = field(default=None, repr=False)  # For copies from before migrations.

    def to_json(self) -> str:
        """As they travel to the worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings again; what is unknown here is left out."""
        found = json.loads(text)
        return cls(tuple(found["signal_servers"]), found.get("backup_passphrase"))
