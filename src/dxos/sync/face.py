"""The blocking face of what lives in another thread's event loop: the same names, and calls that wait.

Whatever of `dxos.client` comes out of a call is given as a `Face`; whatever face goes in is given as what it shows. So
this knows no method by name but those that take callbacks, and follows the asynchronous interface as it grows.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import weakref
from collections.abc import AsyncIterator, Callable, ItemsView, Iterator, KeysView, ValuesView
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum
from threading import Lock
from types import BuiltinMethodType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, cast, final

import anyio

from dxos.aio import Subscription, stay_here
from dxos.client.query import Query
from dxos.errors import DeadlineError
from dxos.limits import VALUE_DEPTH_MAX
from dxos.sync.thread import LoopThread

# Their callbacks are told and asked nothing, so they may take their time, in a thread of their own.
_TELLING: Final = frozenset({"subscribe", "listen"})
_FUNCTIONS: Final = (FunctionType, MethodType, BuiltinMethodType, functools.partial)
_LIVE_PACKAGE: Final = "dxos.client"
_SPECIAL_METHODS: Final = (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__", "__bool__", "__add__", "__radd__"),
    *("__iadd__", "__copy__", "__deepcopy__", "__reversed__"),
)


class Face:
    """Something of another thread's event loop; attributes, items and methods are those of what it shows."""

    __slots__ = ("__weakref__", "_face_loop", "_face_target")

    _face_loop: FaceLoop
    _face_target: Any

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of what it shows, so that `isinstance` says what a program wants to know."""
        return type(self._face_target)

    def __getattr__(self, name: str) -> Any:
        target = self._face_target
        if isinstance(getattr(type(target), name, None), FunctionType):
            return self._face_loop.method(target, name)
        if name.startswith("_"):
            # For this package only, which asks for the inside of an object to make a reference to it.
            return getattr(target, name)
        if name == "wait" and hasattr(type(target), "__await__"):
            return functools.partial(self._face_loop.perform, _wait_for, target)
        return self._face_loop.perform(getattr, target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._face_loop.perform(setattr, self._face_target, name, value)

    def __delattr__(self, name: str) -> None:
        self._face_loop.perform(delattr, self._face_target, name)

    __reduce_ex__ = stay_here

    def __dir__(self) -> list[str]:
        return cast(list[str], self._face_loop.perform(dir, self._face_target))

    def __repr__(self) -> str:
        return cast(str, self._face_loop.perform(repr, self._face_target))

    def __str__(self) -> str:
        return cast(str, self._face_loop.perform(str, self._face_target))


def face_class(shown: type, base: type[Face] = Face) -> type[Face]:
    """A class of faces with the special methods that a class has."""
    content: dict[str, Any] = {"__slots__": ()}
    for name in _SPECIAL_METHODS:
        if hasattr(shown, name):
            content[name] = _special(name)
    if any("__eq__" in vars(one) for one in shown.__mro__ if one is not object):
        content["__eq__"] = _special("__eq__")
        content["__hash__"] = None if shown.__hash__ is None else _special("__hash__")
    if shown is Query:  # A script wants what is found; changes come to whoever subscribes.
        content["__iter__"] = lambda self: iter(self.run())
    elif hasattr(shown, "__iter__"):
        content["__iter__"] = lambda self: iter(self._face_loop.perform(_list_of, self._face_target))
    elif hasattr(shown, "__aiter__"):
        content["__iter__"] = lambda self: _FaceIterator(self._face_loop, self._face_target)
    if hasattr(shown, "__aenter__") or hasattr(shown, "__enter__"):
        content["__enter__"], content["__exit__"] = _enter, _exit
    return type(shown.__name__, (base,), content)


def _special(name: str) -> Callable[..., Any]:
    def method(self: Face, *args: Any) -> Any:
        return self._face_loop.perform(getattr(type(self._face_target), name), self._face_target, *args)

    return method


def _list_of(values: Any) -> list[Any]:
    return list(values)


async def _wait_for(target: Any, timeout_s: float | None = None) -> Any:
    """Wait for what can be awaited."""
    with anyio.move_on_after(timeout_s):
        return await target
    assert timeout_s is not None
    raise DeadlineError(f"Nothing came within {timeout_s:g} s.", timeout_s=timeout_s)


def _enter(self: Face) -> Any:
    target = self._face_target
    if not hasattr(target, "__aenter__"):
        return self._face_loop.perform(target.__enter__)
    return self._face_loop.perform(target.__aenter__)


def _exit(self: Face, *reason: Any) -> Any:
    target = self._face_target
    if not hasattr(target, "__aexit__"):
        return self._face_loop.perform(target.__exit__, *reason)
    return self._face_loop.perform(target.__aexit__, *reason)


@final
class _FaceIterator(Iterator[Any]):
    """What `async for` gives, one after the other."""

    def __init__(self, loop: FaceLoop, source: Any) -> None:
        self._loop = loop
        self._values: AsyncIterator[Any] = loop.raw(source.__aiter__)

    def __next__(self) -> Any:
        try:
            return self._loop.perform(_next_of, self._values)
        except StopAsyncIteration:
            raise StopIteration from None


async def _next_of(values: AsyncIterator[Any]) -> Any:
    return await values.__anext__()


@final
class FaceLoop:
    """Makes faces and sees through them, for one client.

    Args:
        thread: Where what they show lives.
    """

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        # By the identity of what they show, which they keep alive; so the same thing has the same face.
        self._faces: weakref.WeakValueDictionary[int, Face] = weakref.WeakValueDictionary()

    def raw(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call in the loop's thread with things as they are there."""
        return self._thread.call(lambda: function(*args))

    def perform(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call in the loop's thread, with faces seen through on the way there, and made on the way back."""
        args = tuple(self._inside(one) for one in args)
        options = {name: self._inside(one) for name, one in options.items()}
        return self.outside(self._thread.call(lambda: _settled(function(*args, **options))))

    def method(self, target: Any, name: str) -> Callable[..., Any]:
        """A method of something that lives there, for callers here."""
        bound = getattr(target, name)

        @functools.wraps(bound)
        def call(*args: Any, **options: Any) -> Any:
            if name in _TELLING:
                return self._subscribe(bound, *args, **options)
            return self.perform(bound, *args, **options)

        return call

    def _subscribe(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        mark = _Mark()
        args = tuple(self._told(one, mark) for one in args)
        options = {name: self._told(one, mark) for name, one in options.items()}
        inner = self.perform(method, *args, **options)

        def end() -> None:
            mark.active = False
            inner.unsubscribe()

        return Subscription(end)

    def _told(self, value: Any, mark: _Mark) -> Any:
        if not isinstance(value, _FUNCTIONS):
            return value

        def put(*args: Any) -> None:
            self._thread.tell(functools.partial(mark.call, value, *map(self.outside, args)))

        return _AsIs(put)

    # --- There ---

    def _inside(self, value: Any, depth: int = 0) -> Any:
        """A caller's value as the loop's side wants it."""
        kind = type(value)
        if issubclass(kind, Face):
            return value._face_target
        if kind is _AsIs:
            return value.function
        if isinstance(value, _FUNCTIONS):
            return self._asked(value)
        if depth > VALUE_DEPTH_MAX + 1:
            return value  # A cycle, most likely; whoever stores the value refuses it.
        if kind is dict:
            return {key: self._inside(one, depth + 1) for key, one in value.items()}
        if kind in (list, tuple, set, frozenset):
            return kind(self._inside(one, depth + 1) for one in value)
        if isinstance(value, GeneratorType | map | filter):
            return (self._inside(one) for one in value)
        return value

    def _asked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that gives a value, such as a predicate: called in the loop's thread, with faces."""

        @functools.wraps(function, updated=())
        def call(*args: Any, **options: Any) -> Any:
            shown = {name: self.outside(one) for name, one in options.items()}
            return self._inside(function(*map(self.outside, args), **shown))

        return call

    # --- Here ---

    def outside(self, value: Any) -> Any:
        """A value of the loop's side as a caller wants it."""
        kind = type(value)
        if kind in _PLAIN or issubclass(kind, Face):
            return value
        if isinstance(value, list | tuple | set | frozenset):
            if kind.__module__.startswith(_LIVE_PACKAGE) or kind in (list, tuple, set, frozenset):
                return kind(self.outside(one) for one in value)
            return value
        if kind is dict:
            return {key: self.outside(one) for key, one in value.items()}
        if isinstance(value, Subscription):
            return Subscription(functools.partial(self.raw, value.unsubscribe))
        if isinstance(value, MethodType) and _is_live(type(value.__self__)):
            return self.method(value.__self__, value.__name__)
        if not _is_live(kind):
            return value
        if dataclasses.is_dataclass(value):
            return self._outside_fields(value)
        return self.face(value)

    def face(self, target: Any) -> Face:
        """The face of something that lives there."""
        with _making:
            found = self._faces.get(id(target))
            if found is None:
                found = _face_class_of(type(target)).__new__(_face_class_of(type(target)))
                self.show(found, target)
            return found

    def show(self, face: Face, target: Any) -> None:
        """Let a new face show something."""
        object.__setattr__(face, "_face_loop", self)
        object.__setattr__(face, "_face_target", target)
        self._faces[id(target)] = face

    def _outside_fields(self, value: Any) -> Any:
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
        shown = {name: self.outside(one) for name, one in fields.items()}
        changed = {name: one for name, one in shown.items() if one is not fields[name]}
        return dataclasses.replace(value, **changed) if changed else value


@dataclasses.dataclass(frozen=True, slots=True)
class _AsIs:
    """A function that goes to the loop's side unchanged."""

    function: Callable[..., Any]


@final
class _Mark:
    """Whether a subscriber still wants to be told."""

    def __init__(self) -> None:
        self.active = True

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call it, unless it has unsubscribed since."""
        if self.active:
            function(*args)


_making: Final = Lock()  # Of faces.
if sys.platform != "win32":
    # No child of a fork finds it held by a thread that it does not have.
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
# Both are bounded by the number of classes of the program.
_face_class_of: Final[Callable[[type], type[Face]]] = functools.cache(face_class)


def _settled(value: Any) -> Any:
    """A value that can leave the loop's thread: not a view of something that changes there."""
    return list(value) if isinstance(value, KeysView | ValuesView | ItemsView) else value


def _find_live(kind: type) -> bool:
    """Whether values of a class belong to the event loop that made them."""
    if issubclass(kind, Enum | BaseException | type):
        return False
    if any(one.__module__.startswith(_LIVE_PACKAGE) for one in kind.__mro__):
        return True
    return issubclass(kind, AbstractAsyncContextManager | AbstractContextManager | AsyncIterator | GeneratorType)


_is_live: Final[Callable[[type], bool]] = functools.cache(_find_live)
