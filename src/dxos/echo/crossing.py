"""When a peer has gone over to the root of a new epoch, so that documents it could not place until then are sent to it.

    unknown ──the peer names a root──▶ apart ──ROOT_SETTLE_S after both name the same, or ROOT_APART_S──▶ free
                                         ▲                                                              │
                                         └─────────────────── either names another ─────────────────────┘

The client of 0.8.3 looks at what its query finds once, and drops for good what the root that it has at that moment does
not link to. It goes over to a new root only some time after it has read the epoch and has the root, and meanwhile a
document of an object that is new may have reached it. So to a peer of 0.8.3, new documents wait.

Such a peer is told by its queries: it asks for a space's documents without a root as well, and others do not.
"""

from collections.abc import Callable
from typing import final

from msgspec import Struct

from dxos.echo.messages import Collection
from dxos.limits import ROOT_APART_S, ROOT_SETTLE_S


@final
class _Roots(Struct):
    """What one space's root is, for the peer and for us."""

    asks_without: bool = False  # As 0.8.3 does.
    theirs: str | None = None  # None until the peer names one.
    is_unheard: bool = False  # Waited for to name one.
    ours: str | None = None
    were_apart: bool = False
    free_at: float = 0.0  # Nothing waits from then on.


@final
class Crossings:
    """Where one peer is, in each space that is shared with it."""

    def __init__(self) -> None:
        self._roots: dict[str, _Roots] = {}

    def hear_query(self, collection: Collection) -> None:
        """Take note of what the peer asks for, of a space that is shared with it."""
        roots = self._roots.setdefault(collection.space_id, _Roots())
        if collection.root_document_id is None:
            roots.asks_without = True
        else:
            roots.theirs = collection.root_document_id

    def forget(self, space_id: str) -> None:
        """A space is shared no longer."""
        self._roots.pop(space_id, None)

    def free_at(self, space_id: str) -> float:
        """From when on new documents of a space need not wait, as far as is known now."""
        roots = self._roots.get(space_id)
        return 0.0 if roots is None else roots.free_at

    def evaluate(
        self,
        space_id: str,
        our_root: str | None,
        has_document: Callable[[str], bool],
        now: float,
        *,
        is_first: bool = False,
    ) -> None:
        """Compare the peer's root with ours.

        Args:
            space_id: The space.
            our_root: Its root, as far as it is known here.
            has_document: Whether a document is here.
            now: The time.
            is_first: Whether the space had no root before this one.
        """
        roots = self._roots.setdefault(space_id, _Roots())
        if our_root is None:
            return
        if roots.theirs is None:
            if not is_first and not roots.is_unheard:
                roots.is_unheard, roots.free_at = True, now + ROOT_APART_S  # It may be about to name an earlier one.
            return
        if roots.is_unheard or not roots.asks_without:
            roots.is_unheard, roots.free_at = False, now
        if not roots.asks_without:
            return
        # Links that are still to be taken over into a root that is on its way are not here either.
        apart = roots.theirs != our_root or not has_document(our_root)
        if apart and not (roots.were_apart and roots.ours == our_root):
            roots.free_at = now + ROOT_APART_S
        elif roots.were_apart and not apart:
            roots.free_at = now + ROOT_SETTLE_S
        roots.ours, roots.were_apart = our_root, apart

    def __repr__(self) -> str:
        return f"<Crossings {len(self._roots)} apart={sum(roots.were_apart for roots in self._roots.values())}>"
