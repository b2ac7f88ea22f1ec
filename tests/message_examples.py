"""One example of each message between the processes of one profile."""

from typing import Any

from msgspec import inspect

from dxos.worker.messages import Failure, Message

FAILURE = Failure("storage.corruption", "Feed 1 is damaged.", {"feed": 1, "path": "a", "ok": True})
_BY_TYPE: dict[type, object] = {
    inspect.StrType: "ä",
    inspect.IntType: 7,
    inspect.BoolType: True,
    inspect.StructType: FAILURE,
}


def example(kind: type[Message]) -> Message:
    """A message of that kind, no field of which has its default."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    make: Any = kind
    made: Message = make(**{one.name: _BY_TYPE[type(one.type)] for one in shape.fields})
    return made
