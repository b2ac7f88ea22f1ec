"""Services that stay the same objects while the host behind them is closed and opened again.

    on ──turn_off──▶ off: calls raise ClosedError, streams are silent ──turn_on──▶ on: streams go on

A stream of states goes on with the next other state; a stream of changes says that some may have been missed. One that
is asked for while there is no host begins with the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast, final

from msgspec import Struct

from dxos import aio
from dxos.aio import Opener
from dxos.errors import DxosError, HostInactiveError
from dxos.services import contract
from dxos.services.contract import Next, Services, Subscription
from dxos.services.methods import Method, Stream, methods_of

_NOTHING: Final = object()


@final
class _Kept(Struct, eq=False):
    """A stream that goes on with every host."""

    follow: Callable[[Next[Any]], Subscription]  # Asks the present host.
    next: Next[Any]
    missed: Callable[[], None] | None
    is_state: bool
    last: object = _NOTHING
    present: Subscription | None = None

    def receive(self, value: Any) -> None:
        if self.is_state:
            if self.last is not _NOTHING and value == self.last:
                return
            self.last = value
        self.next(value)


@final
class Switch:
    """Forwards everything but `system` to the services of the present host."""

    def __init__(self, system: contract.SystemService) -> None:
        self._system = system
        self._inner: Services | None = None
        self._opener = Opener()
        self._kept: dict[_Kept, None] = {}
        self.network = cast(contract.NetworkService, _Forward(self, "network"))
        self.identity = cast(contract.IdentityService, _Forward(self, "identity"))
        self.devices = cast(contract.DevicesService, _Forward(self, "devices"))
        self.contacts = cast(contract.ContactsService, _Forward(self, "contacts"))
        self.invitations = cast(contract.InvitationsService, _Forward(self, "invitations"))
        self.spaces = cast(contract.SpacesService, _Forward(self, "spaces"))
        self.data = cast(contract.DataService, _Forward(self, "data"))
        self.query = cast(contract.QueryService, _Forward(self, "query"))
        self.history = cast(contract.HistoryService, _Forward(self, "history"))
        self.logging = cast(contract.LoggingService, _Forward(self, "logging"))
        self.devtools = cast(contract.DevtoolsHost, _Forward(self, "devtools"))

    @property
    def system(self) -> contract.SystemService:
        """The one that is always there."""
        return self._system

    @property
    def is_on(self) -> bool:
        """Whether there is a host."""
        return self._inner is not None

    @property
    def inner(self) -> Services:
        """The services of the present host.

        Raises:
            HostInactiveError: There is none.
            ClosedError: It is of the process that forked this one.
        """
        self._opener.check()
        if self._inner is None:
            raise HostInactiveError
        return self._inner

    def turn_on(self, inner: Services) -> None:
        """Go on with this host."""
        self._inner = inner
        for one in tuple(self._kept):
            self._follow(one)
            if one.missed is not None:
                one.missed()

    def turn_off(self) -> None:
        """The host closes."""
        self._inner = None
        for one in self._kept:
            present, one.present = one.present, None
            if present is not None:
                present.unsubscribe()

    def _follow(self, kept: _Kept) -> None:
        try:
            kept.present = kept.follow(kept.receive)
        except DxosError:
            self._kept.pop(kept, None)  # What it was about is gone.

    def keep(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Subscription:
        """Follow a stream, on this host and the next ones."""
        args, next_ = (args, kwargs.pop("next")) if "next" in kwargs else (args[:-1], args[-1])
        missed = kwargs.get("missed")

        def follow(receive: Next[Any]) -> Subscription:
            service = getattr(self.inner, method.service)
            return cast(Subscription, getattr(service, method.attribute)(*args, receive, **kwargs))

        kept = _Kept(follow, next_, missed, method.stream is Stream.STATES)
        if self.is_on:
            kept.present = follow(kept.receive)  # What is wrong with it is raised here.
        self._kept[kept] = None

        def end() -> None:
            self._kept.pop(kept, None)
            if kept.present is not None:
                kept.present.unsubscribe()

        return aio.Subscription(end)

    def __repr__(self) -> str:
        return f"<Switch {'on' if self.is_on else 'off'} {len(self._kept)} streams>"


@final
class _Forward:
    """One service of whatever host is present."""

    def __init__(self, switch: Switch, service: str) -> None:
        self._switch, self._service = switch, service

    def __getattr__(self, name: str) -> Any:
        method = methods_of(self._service).get(name)
        if method is None or method.stream is None:
            return getattr(getattr(self._switch.inner, self._service), name)
        return lambda *args, **kwargs: self._switch.keep(method, args, kwargs)

    def __repr__(self) -> str:
        return f"<_Forward {self._service}>"
