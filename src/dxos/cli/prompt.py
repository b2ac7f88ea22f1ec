"""Reading what a person types, without keeping the event loop or an interruption waiting."""

from __future__ import annotations

import os
import stat
import sys
from typing import TextIO, final

import anyio

_READ_BYTES = 4_096


@final
class LineReader:
    """Lines of standard input; reading one can be cancelled, which no thread that waits in `readline` can.

    Args:
        stdin: None: the process's.
    """

    def __init__(self, stdin: TextIO | None = None) -> None:
        self._stdin = stdin or sys.stdin
        self._rest = b""
        self._ended = False

    async def read(self) -> str | None:
        """The next line without its end, or None at the end of the input.

        Cancelling loses nothing.
        """
        number = _waitable(self._stdin)
        if number is None:
            text = self._stdin.readline()
            return text.rstrip("\r\n") if text else None
        while b"\n" not in self._rest and not self._ended:
            await anyio.wait_readable(number)
            chunk = os.read(number, _READ_BYTES)
            self._rest += chunk
            self._ended = not chunk
        line, _, self._rest = self._rest.partition(b"\n")
        if self._ended and not line:
            return None
        return line.decode(errors="replace").rstrip("\r")


def _waitable(file: TextIO) -> int | None:
    """The descriptor of a terminal, pipe or socket; files never make one wait."""
    try:
        number = file.fileno()
    except (OSError, ValueError):
        return None
    mode = os.fstat(number).st_mode
    return number if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number) else None
