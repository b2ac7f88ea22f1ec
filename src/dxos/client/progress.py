"""What takes long in a client, and how far it is: `client.progress`, for applications that show bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

from dxos.client.observable import Source
from dxos.services.contract import Next, Progress

ActivityKind = Literal["add", "export", "import", "back_up", "restore", "compact", "sync"]


@final
@dataclass(frozen=True, slots=True)
class Activity:
    """One piece of work that is under way."""

    kind: ActivityKind
    space_id: str | None  # None for work on a whole profile, and for an archive, which becomes a space at the end.
    progress: Progress


@final
class Activities(Source[tuple[Activity, ...]]):
    """All that is under way now, in the order in which it began."""

    def __init__(self) -> None:
        super().__init__(())
        self._running: dict[object, Activity] = {}

    @contextmanager
    def begin(
        self, kind: ActivityKind, space_id: str | None, also: Callable[[Progress], object] | None
    ) -> Iterator[Next[Progress]]:
        """A piece of work, from its first report to the end of the block; `also` is told of each report too."""
        mark = object()

        def tell(progress: Progress) -> None:
            self._set(mark, Activity(kind, space_id, progress))
            if also is not None:
                also(progress)

        try:
            yield tell
        finally:
            self._set(mark, None)

    def _report_sync(self, space_id: str, progress: Progress | None) -> None:
        """How much of a space has come from its members; None: all, or they have gone."""
        self._set(("sync", space_id), None if progress is None else Activity("sync", space_id, progress))

    def _set(self, mark: object, activity: Activity | None) -> None:
        if self._running.get(mark) == activity:
            return
        if activity is None:
            del self._running[mark]
        else:
            self._running[mark] = activity
        self._next(tuple(self._running.values()))
