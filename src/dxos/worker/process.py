"""The worker."""

import socket
import time

import dxos.services.local  # noqa: F401
from dxos.worker.lockfile import AliveMark
from dxos.worker.places import Places


def run_worker(places: Places, worker_id: str, mark: AliveMark, link: socket.socket) -> int:
    """Be a worker."""
    link.send(b"hello")
    link.recv(10)
    mark.remove()
    return 0
