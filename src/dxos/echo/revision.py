"""What a history tells, as plain values: the changes of an object, and what was written at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import final

from msgspec import Struct

from dxos.echo.difference import Difference
from dxos.echo.rows import Json, Path

_ID_CHARS_SHOWN = 8


@final
class Revision(Struct, frozen=True, array_like=True):
    """One change of an object, by whoever made it; what one peer does in one turn of its event loop.

    `str` of it is for people: `2026-11-20 22:10:08 (here) title: 'Milk' → 'Oat milk'`.
    """

    id: bytes  # 32 bytes, the same on every peer.
    object_id: str
    time_ms: int | None  # Milliseconds since 1970; None where nobody noted it. See `time`.
    own: bool  # Whether it was made on this device.
    author: bytes  # Whose copy it was made in; one device has many over time.
    differences: tuple[Difference, ...]  # What it changed, as its author saw it.

    @property
    def time(self) -> datetime | None:
        """When it was made, in UTC; None if that is not known.

        For changes made here, exactly. For those of others, what they say themselves, as JavaScript peers do in whole
        seconds, else when they came; unknown for those that were there already when this device joined.
        """
        return None if self.time_ms is None else datetime.fromtimestamp(self.time_ms / 1000, UTC)

    def __str__(self) -> str:
        when = "at an unknown time" if self.time is None else f"{self.time:%Y-%m-%d %H:%M:%S}"
        what = "; ".join(map(str, self.differences))
        return f"{when} ({'here' if self.own else self.author.hex()[:_ID_CHARS_SHOWN]}) {what}"


@final
class ConflictingValue(Struct, frozen=True, array_like=True):
    """One of the values that were written at once."""

    value: Json  # As it was written; references are {"/": DXN}.
    revision: bytes  # The id of the change that wrote it.
    time_ms: int | None  # As for a revision.
    own: bool  # Whether it was written on this device.


@final
class Conflict(Struct, frozen=True, array_like=True):
    """A property to which peers gave different values without knowing of each other.

    All peers show the same one of them. Assigning the property decides, for whatever value.
    """

    path: Path  # Of the property, in the object.
    values: tuple[ConflictingValue, ...]  # Two or more; the first is the one that everybody sees.
