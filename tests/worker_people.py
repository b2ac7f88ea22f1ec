"""Processes that share one profile, and what is left of them in the end."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dxos.worker.lockfile import LeaderLock, alive_pid, is_locked, read_generation

SOURCE = Path(__file__).parents[1] / "src"
WAIT_S = 40.0


class Person:
    """A client in a process of its own; see the script, as `worker_peer.py`, for what can be asked of it."""

    def __init__(
        self,
        profile: Path,
        backend: str = "asyncio",
        script: str = "worker_peer.py",
        servers: Sequence[str] = (),
        *,
        source: Path = SOURCE,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "default", str(Path(__file__).parent / script), str(profile), backend, *servers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(source), str(Path(__file__).parent)])},
        )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.opened_s = 0.0
        self.code, self.words = 0, ""  # Known when it is over.

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def ready(self) -> "Person":
        """Wait until its client is open."""
        self.opened_s = self.answer()
        return self

    def tell(self, do: str, **options: Any) -> None:
        """Ask, and wait for no answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **options}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The answer to what was told before; AssertionError with what was raised there."""
        line = self._lines.get(timeout=WAIT_S)
        assert line, f"process {self.pid} ended: {self.said()}"
        found = json.loads(line)
        assert "error" not in found, f"process {self.pid}: {found}"
        return found["result"]

    def ask(self, do: str, **options: Any) -> Any:
        """Have something done; its answer."""
        self.tell(do, **options)
        return self.answer()

    def signal(self, number: int) -> None:
        """SIGKILL, SIGSTOP, SIGCONT."""
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(WAIT_S)

    def leave(self) -> None:
        """Have it end in order, and do not wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop(self) -> str:
        """End it in order; what it wrote on stderr, which should be nothing."""
        self.leave()
        code = self._process.wait(WAIT_S)
        said = self.said()
        assert code == 0, said
        return said

    def fail(self) -> str:
        """Wait until it ends because it cannot be opened; what it wrote on stderr."""
        assert self._process.wait(WAIT_S) == 1
        return self.said()

    def said(self) -> str:
        """What it wrote on stderr until its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read()

    def close(self) -> None:
        """Whatever it does, it is over."""
        self._process.kill()
        self.code = self._process.wait()
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            os.set_blocking(self._process.stderr.fileno(), False)  # A child of its own may have it still.
            self.words = os.read(self._process.stderr.fileno(), 65_536).decode(errors="replace")
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class People:
    """Those who share one profile."""

    def __init__(self, profile: Path, script: str = "worker_peer.py", servers: Sequence[str] = ()) -> None:
        self.profile, self._script, self._servers = profile, script, servers
        self.host = profile / "host"
        self._all: list[Person] = []

    def start(self, backend: str = "asyncio", source: Path = SOURCE) -> Person:
        """Start another one, of the package in that folder; `ready` waits for it."""
        person = Person(self.profile, backend, self._script, self._servers, source=source)
        self._all.append(person)
        return person

    def first(self, backend: str = "asyncio") -> Person:
        """One who leads, with an identity and a space, and follows it."""
        person = self.start(backend).ready()
        person.ask("create")
        person.ask("follow")
        return person

    def another(self, backend: str = "asyncio") -> Person:
        """One more, who follows the space."""
        person = self.start(backend).ready()
        person.ask("follow")
        return person

    def close(self) -> None:
        for person in self._all:
            person.close()

    def processes(self) -> dict[int, str]:
        """The pids of the profile's workers and their parents, and what each is; only Linux shows them."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit() or str(self.host).encode() not in (entry / "cmdline").read_bytes():
                    continue
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(entry.name)] = "worker" if int(entry.name) in self._marked() else "zygote"
        return found

    def worker_pid(self) -> int:
        """The worker's."""
        (pid,) = self._marked()
        return pid

    def zygote_pid(self) -> int:
        """Its parent's."""
        (pid,) = (pid for pid, kind in self.processes().items() if kind == "zygote")
        return pid

    def _marked(self) -> list[int]:
        return [pid for path in self.host.glob("alive.*") if (pid := alive_pid(path))]

    def check_locks(self) -> None:
        """Nobody leads, and who does so next leaves one file, however many were killed before they had removed others.

        Whoever leads makes the disk sure of its file before it removes the one before, which takes some time where much
        is written: of several that are killed, each may leave one.
        """
        locks = {one.name: (is_locked(one), read_generation(self.host, int(one.suffix[1:]))) for one in self._locks()}
        if not locks:
            return  # It was deleted, or nobody came to lead.
        assert not any(is_held for is_held, _ in locks.values()), locks
        lock = LeaderLock(self.host, "0")
        assert lock.try_lock(), locks
        lock.release()
        left = self._locks()
        assert len(left) == 1, (locks, left)

    def _locks(self) -> list[Path]:
        return sorted(self.host.glob("leader.*"))

    def tell(self) -> None:
        """Print what is known of a test that failed."""
        print("processes:", self.processes(), "files:", sorted(os.listdir(self.host)) if self.host.exists() else None)
        for one in self._all:
            print(f"process {one.pid} ended with {one.code}: {one.words}")
        for log in sorted(self.host.glob("*.log")):
            print(log.name, log.read_text(), sep="\n")

    def leftovers(self) -> list[str]:
        """Files that should not be there when nobody uses the profile."""
        kept = {"worker.log", "sockets"}
        return sorted(one for one in os.listdir(self.host) if one not in kept and not one.startswith("leader."))


def until(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Wait until it is true; what it gave."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def people(profile: Path, script: str = "worker_peer.py", servers: Sequence[str] = ()) -> Iterator[People]:
    """Those who share a profile; in the end no process and no file of theirs is left."""
    them = People(profile, script, servers)
    try:
        try:
            yield them
        finally:
            them.close()
        if them.host.exists():
            until(lambda: not them.processes(), 20)
            left = them.leftovers()
            assert left == [], left
            them.check_locks()
    except BaseException:
        them.tell()
        raise
