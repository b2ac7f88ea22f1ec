"""Pauses that double after each failure and differ between peers, so that those who fail together retry apart."""

from collections.abc import Callable
from typing import final


@final
class Backoff:
    """The next pause is drawn from the upper half of a span that doubles from `s_min` to `s_max`.

    Source: "Exponential backoff and jitter", equal jitter; M. Brooker, AWS Architecture Blog, 2015.
    """

    __slots__ = ("_random", "_s_max", "_s_min", "_span_s")

    def __init__(self, s_min: float, s_max: float, *, random: Callable[[int], bytes]) -> None:
        assert 0.0 < s_min <= s_max
        self._s_min, self._s_max, self._random = s_min, s_max, random
        self._span_s = s_min

    def __repr__(self) -> str:
        return f"<Backoff {self._span_s:g} s>"

    def next_pause(self) -> float:
        """Seconds to wait after one more failure."""
        span_s, self._span_s = self._span_s, min(self._span_s * 2.0, self._s_max)
        return span_s * (0.5 + 0.5 * int.from_bytes(self._random(2), "big") / 0xFFFF)

    def reset(self) -> None:
        """Begin again with the shortest pause, after a success."""
        self._span_s = self._s_min
