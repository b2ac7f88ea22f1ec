"""Which space or object a person means: by its name, or by as much of its id or key as is unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from dxos.errors import ObjectNotFoundError, SpaceNotFoundError
from dxos.keys import PublicKey

_CANDIDATES_SHOWN_MAX = 5


class Named(Protocol):
    """What is needed of a space to find it."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> PublicKey: ...
    @property
    def name(self) -> str | None: ...


S = TypeVar("S", bound=Named)


def find_space(spaces: Iterable[S], wanted: str) -> S:
    """The space that `wanted` names: by id or key, else by name, else by the beginning of id or key.

    Raises:
        SpaceNotFoundError: None, or several; the message lists which there are.
    """
    spaces, text = list(spaces), wanted.strip()
    if not spaces:
        raise SpaceNotFoundError("This profile has no space yet: dx space create NAME, or dx space join CODE")
    exact = [one for one in spaces if text in (one.id, one.key.hex)]
    named = [one for one in spaces if one.name == text]
    # People type names without looking at case; a prefix of three characters can still be meant as one.
    loosely_named = [one for one in spaces if one.name is not None and one.name.casefold() == text.casefold()]
    begun = [one for one in spaces if text and (_begins(one.id, text) or _begins(one.key.hex, text))]
    for found in (exact, named, loosely_named, begun):
        if len(found) == 1:
            return found[0]
        if found:
            raise SpaceNotFoundError(f"{len(found)} spaces match {wanted!r}; use the id: {_list(found)}")
    raise SpaceNotFoundError(f"No space matches {wanted!r}; there are: {_list(spaces)}")


def find_id(object_ids: Sequence[str], wanted: str) -> str:
    """The object id that `wanted` is, or begins.

    Raises:
        ObjectNotFoundError: None, or several.
    """
    text = wanted.strip().upper()
    found = [text] if text in object_ids else [one for one in object_ids if text and one.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(found[:_CANDIDATES_SHOWN_MAX]) + (", …" if len(found) > _CANDIDATES_SHOWN_MAX else "")
        raise ObjectNotFoundError(f"{len(found)} objects begin with {wanted!r}: {shown}")
    raise ObjectNotFoundError(f"No object of this space has an id that begins with {wanted!r}.")


def _begins(text: str, prefix: str) -> bool:
    return text.casefold().startswith(prefix.casefold())


def _list(spaces: Sequence[Named]) -> str:
    shown = [f"{one.name or 'unnamed'} ({one.id})" for one in spaces[:_CANDIDATES_SHOWN_MAX]]
    return ", ".join(shown) + (", …" if len(spaces) > _CANDIDATES_SHOWN_MAX else "")
