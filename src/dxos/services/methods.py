"""The contract's methods by the names of 0.8.3: what travels for each, made from the contract's own annotations.

`docs/processes.md` shows this table. A stream is followed again by another host, a call that is made twice without harm
is made again, an update carries a receipt; every other call fails if nobody knows whether it was done.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Any, Final, final, get_args, get_origin, get_type_hints

from dxos.services import contract
from dxos.services.codec import Codec, codec_of
from dxos.services.contract import Subscription


class Repeat(Enum):
    """What becomes of a call when its session ends before the answer."""

    AGAIN = "again"  # It is made again.
    RECEIPT = "receipt"  # It is made again, and done once.
    NEVER = "never"  # It fails with BrokenError.


class Stream(Enum):
    """What the values of a stream are."""

    STATES = "states"  # Each replaces the one before, so an equal one is no news.
    EVENTS = "events"


@final
@dataclass(frozen=True)
class Method:
    """One method of one service; hints are read when it is first used, because a client starts with few of them."""

    name: str  # `dxos.client.services.SystemService.QueryStatus`
    service: str  # The name of the service in `Services`.
    attribute: str
    function: Callable[..., Any]
    repeat: Repeat = Repeat.AGAIN
    stream: Stream | None = None  # None: a call.

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations."""
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """What travels from the client to the host."""
        found = inspect.signature(self.function).parameters.values()
        return tuple(one for one in found if one.name not in _LOCAL)

    @cached_property
    def arguments(self) -> Codec:
        """Of all parameters, as one tuple."""
        hints = tuple(self.hints[one.name] for one in self.parameters)
        return codec_of(tuple.__class_getitem__(hints))

    @cached_property
    def result(self) -> Codec:
        """Of the answer."""
        return codec_of(self.hints["return"])

    @cached_property
    def is_list(self) -> bool:
        """Whether the answer is any number of items, which come in pieces."""
        return get_origin(self.hints["return"]) in (tuple, list)

    @cached_property
    def item(self) -> Codec:
        """Of a stream's values, or of the progress of a call."""
        (parameters, _) = get_args(self.hints["next"])
        return codec_of(parameters[0])

    @cached_property
    def has_progress(self) -> bool:
        """Whether the call tells how far it is."""
        return self.stream is None and "next" in self.hints

    def bind(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The values of all parameters."""
        values = list(args)
        for one in self.parameters[len(args) :]:
            values.append(kwargs.pop(one.name) if one.name in kwargs else one.default)
        if kwargs or inspect.Parameter.empty in values or len(values) > len(self.parameters):
            raise TypeError(f"{self.attribute} does not take these arguments")
        return tuple(values)

    def split(self, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Those values as arguments of a call."""
        positional, keyword = [], {}
        for one, value in zip(self.parameters, values, strict=True):
            if one.kind is inspect.Parameter.KEYWORD_ONLY:
                keyword[one.name] = value
            else:
                positional.append(value)
        return positional, keyword


_LOCAL: Final = ("self", "next", "missed")  # Parameters that stay on their side.
_UNSENT: Final = {"forget"}  # The end of a session says it.
_CLIENT: Final = "dxos.client.services"
_SERVICES: Final[dict[str, tuple[str, type[Any]]]] = {
    "system": (f"{_CLIENT}.SystemService", contract.SystemService),
    "network": (f"{_CLIENT}.NetworkService", contract.NetworkService),
    "identity": (f"{_CLIENT}.IdentityService", contract.IdentityService),
    "devices": (f"{_CLIENT}.DevicesService", contract.DevicesService),
    "contacts": (f"{_CLIENT}.ContactsService", contract.ContactsService),
    "invitations": (f"{_CLIENT}.InvitationsService", contract.InvitationsService),
    "spaces": (f"{_CLIENT}.SpacesService", contract.SpacesService),
    "data": ("dxos.echo.service.DataService", contract.DataService),
    "query": ("dxos.echo.service.QueryService", contract.QueryService),
    "history": (f"{_CLIENT}.HistoryService", contract.HistoryService),
    "logging": (f"{_CLIENT}.LoggingService", contract.LoggingService),
    "devtools": ("dxos.devtools.host.DevtoolsHost", contract.DevtoolsHost),
}
_NAMES: Final = {("query", "execute"): "ExecQuery"}  # Where 0.8.3 has another word.
_REPEATS: Final = {("data", "update"): Repeat.RECEIPT} | dict.fromkeys(
    (
        ("identity", "create_identity"),
        ("invitations", "authenticate"),
        ("spaces", "create_space"),
        ("spaces", "update_member_role"),
        ("spaces", "post_message"),
        ("spaces", "create_epoch"),
        ("spaces", "import_space"),
        ("history", "undo"),
        ("history", "redo"),
    ),
    Repeat.NEVER,
)
_EVENTS: Final = {("data", "subscribe"), ("spaces", "subscribe_messages"), ("logging", "query_logs")}


@cache
def methods_of(service: str) -> dict[str, Method]:
    """The methods of a service, by the names that Python has for them."""
    name, protocol = _SERVICES[service]
    found = {}
    for attribute, function in vars(protocol).items():
        if attribute.startswith("_") or not inspect.isfunction(function) or attribute in _UNSENT:
            continue
        place = (service, attribute)
        word = _NAMES.get(place) or "".join(map(str.capitalize, attribute.split("_")))
        returned = function.__annotations__["return"]
        stream = None
        if returned in (Subscription, "Subscription"):
            stream = Stream.EVENTS if place in _EVENTS else Stream.STATES
        repeat = _REPEATS.get(place, Repeat.AGAIN)
        found[attribute] = Method(f"{name}.{word}", service, attribute, function, repeat, stream)
    return found


@cache
def all_methods() -> dict[str, Method]:
    """Every method, by its name on the wire."""
    return {one.name: one for service in _SERVICES for one in methods_of(service).values()}
