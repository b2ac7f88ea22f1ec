"""How many of the documents that connected peers announced have come: what a person who joins a space waits for."""

from collections.abc import Iterable
from itertools import islice
from typing import final

from dxos.limits import DOCUMENTS_PER_SPACE_MAX

_STEPS = 100  # How often, at most, a number of documents is news.


@final
class Arrivals:
    """The documents of one space that are known to exist and are missing here.

    What is announced while some are still missing adds to the total; once none is missing, counting begins anew.
    """

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._total = 0
        self.told: tuple[int, int] | None = None  # How many have come, of how many; None while nothing is missing.

    def expect(self, document_ids: Iterable[str]) -> None:
        """A peer has these documents, and they are not here."""
        before = len(self._missing)
        self._missing.update(islice(document_ids, DOCUMENTS_PER_SPACE_MAX - before))
        self._total += len(self._missing) - before

    def settle(self, document_id: str) -> None:
        """A document has come, or does not come from whoever announced it."""
        self._missing.discard(document_id)
        if not self._missing:
            self._total = 0

    def clear(self) -> None:
        """Nobody is there any more of whom more could come."""
        self._missing.clear()
        self._total = 0
        self.told = None

    def tell(self) -> bool:
        """Renew `told` where that is worth telling, at the beginning, the end, and each hundredth; whether it was."""
        total = self._total
        now = None if not total else (total - len(self._missing), total)
        told = self.told
        if now is None or told is None or now[1] != told[1]:
            news = now != told
        else:
            news = now[0] * _STEPS // total != told[0] * _STEPS // total
        if news:
            self.told = now
        return news

    def __repr__(self) -> str:
        return f"<Arrivals missing={len(self._missing)} of {self._total}>"
