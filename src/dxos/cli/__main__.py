"""The command `dx`, also as `python -m dxos.cli`; it ends at once when it is interrupted while it is loaded."""

import os
import signal
import sys
from typing import Final

_INTERRUPTED: Final = 130


def main() -> int:
    """Load the commands and run one; its exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # There is nothing to close yet, and Python would print where it was.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from dxos.cli.main import main as run

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())
