"""Edits that become one change: collected while a block runs, then sent in one update, all or none.

Which batch an edit belongs to is found by the task that makes it, so that what other tasks change meanwhile goes its
own way; an object that a batch has changed stays in it until the block ends.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

import anyio

from dxos.errors import DxosError

if TYPE_CHECKING:
    from dxos.client.object import EchoObject

OPEN_BATCHES: Final[ContextVar[tuple[Batch, ...]]] = ContextVar("OPEN_BATCHES", default=())
"""The batches in whose blocks the present task is, the innermost last; a task that was started there is there too."""


@final
class Batch:
    """One block and what was changed in it."""

    __slots__ = ("done", "error", "objects", "step")

    def __init__(self, step: int | None) -> None:
        self.step = step  # What is undone together with it; None: nothing else.
        self.objects: dict[str, EchoObject] = {}
        self.done = anyio.Event()  # The host has answered.
        self.error: DxosError | None = None  # What it refused the batch with.

    def __repr__(self) -> str:
        return f"<Batch of {len(self.objects)} objects>"
