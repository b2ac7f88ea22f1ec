"""A client for plain scripts: the names of `dxos.Client`, and calls that return when it is done.

    from dxos.sync import Client

    with Client(config) as client:
        space = client.create_space(name="Groceries")

It runs its own event loop in a thread of its own, so it also works where a loop runs already, and from several threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, final

from dxos.client import Client as AsyncClient
from dxos.client import Config
from dxos.services.contract import ServicesProvider
from dxos.sync.face import FaceLoop, face_class
from dxos.sync.thread import LoopThread

__all__ = ["Client"]


@final
class Client(face_class(AsyncClient)):  # type: ignore[misc]
    """A client of one profile, for programs without an event loop; everything else is as for `dxos.Client`.

    As a block, `with Client(config) as client:`, or by `initialize()` and `destroy()`. What comes from it (spaces,
    objects, queries, observables) waits as well, and may be used in any thread; `for` is `async for`, and
    `invitation.wait()` is `await invitation`. Subscribers are called in a thread of their own, one after the other, and
    may wait too. A program that ends without closing its clients closes them then.

    Args:
        config: Settings; a mapping becomes a `Config`. None: in memory, without signalling servers.
        services: Where the services come from. None: a host in this process.

    Raises:
        ConfigError: A wrong setting.
    """

    __slots__ = ()

    def __init__(
        self, config: Config | Mapping[str, Any] | None = None, services: ServicesProvider | None = None
    ) -> None:
        target = AsyncClient(config, services)
        FaceLoop(LoopThread(lambda: target.initialized, target.destroy)).show(self, target)

    def __enter__(self) -> Self:
        self._face_loop.perform(self._face_target.initialize)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._face_loop.perform(self._face_target.__aexit__, kind, error, trace)
