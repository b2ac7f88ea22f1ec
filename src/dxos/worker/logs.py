"""The logs of processes without a terminal: files in the profile that only its user may read."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path

from dxos.limits import WORKER_LOG_BYTES_MAX, WORKER_LOGS_MAX
from dxos.store.files import create_private_file


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Within, this process logs to that file, and the interpreter tells of its crashes there."""
    create_private_file(path)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=WORKER_LOG_BYTES_MAX, backupCount=WORKER_LOGS_MAX, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dxos").setLevel(logging.INFO)
    with open(path, "ab") as crashes:
        faulthandler.enable(crashes)
        yield
        faulthandler.disable()
    logging.shutdown()
