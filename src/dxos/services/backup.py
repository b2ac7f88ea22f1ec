"""Backups, in worker threads: written while the profile is in use, restored where there is none yet."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread

from dxos.services.contract import Next, Progress
from dxos.store.backup import Tell, restore_backup, write_backup

_STEPS = 100  # How often, at most, progress is told.


async def back_up_profile(profile: Path, target: Path, passphrase: str, next: Next[Progress], *, now_ms: int) -> int:
    """Write a profile to one sealed file; how many bytes it has. See `dxos.store.backup.write_backup`.

    Cancelling waits for the end of it.
    """
    work = partial(write_backup, profile, target, passphrase, _teller(next), now_ms=now_ms)
    return await anyio.to_thread.run_sync(work)


async def restore_profile(source: Path, profile: Path, passphrase: str, next: Next[Progress]) -> None:
    """Make a profile of a backup; see `dxos.store.backup.restore_backup`.

    Cancelling waits for the end of it.
    """
    await anyio.to_thread.run_sync(partial(restore_backup, source, profile, passphrase, _teller(next)))


def _teller(next: Next[Progress]) -> Tell:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        step = done * _STEPS // total if total else _STEPS
        if step != told:
            told = step
            report: Callable[[], None] = partial(next, Progress(done, total))
            anyio.from_thread.run_sync(report)

    return tell
