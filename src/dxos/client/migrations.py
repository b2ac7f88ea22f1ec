"""Migrations: functions that make objects of one version of a type into objects of another.

    @migration(TaskV1, TaskV2)
    def split_title(old: TaskV1) -> dict[str, Any]: …          await space.db.run_migrations(split_title)

An object is changed once, because afterwards it has the other type. Two peers who do it at once write the same: what a
function returns depends on the object alone, each property is written as a whole, and those that stay are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast, final

from dxos.client.object import EchoObject, become
from dxos.client.schema import StructShape
from dxos.client.state import core_of
from dxos.client.types import object_class
from dxos.echo.mutation import ChangeType
from dxos.echo.rows import same_value
from dxos.errors import UsageError

Old = TypeVar("Old")


@final
class Migration(Generic[Old]):
    """How objects of one class become objects of another; calling it calls the function.

    Args:
        source: The class before.
        target: The class after; as a rule of the same typename, with a higher version.
        transform: Gives the values of the new object's fields. It must depend on nothing but the old object.
    """

    def __init__(self, source: type[Old], target: type, transform: Callable[[Old], Mapping[str, Any]]) -> None:
        self.source, self.target = object_class(cast(Any, source)), object_class(cast(Any, target))
        if self.source.type_name == self.target.type_name:
            raise UsageError(f"{target.__name__}: a migration leads to another type, or another version.")
        if self.source._kind != self.target._kind:
            raise UsageError(f"{target.__name__}: objects cannot become relations, nor relations objects.")
        self._transform = transform
        self.__doc__ = transform.__doc__
        self.__name__ = getattr(transform, "__name__", "migration")

    def __call__(self, old: Old) -> Mapping[str, Any]:
        return self._transform(old)

    def apply(self, one: EchoObject) -> None:
        """Make an object, which is of the class before, one of the class after.

        Raises:
            InvalidValueError: What the function returned does not fit the class.
        """
        core = core_of(one)
        shape = self.target._shape
        assert isinstance(shape, StructShape)
        # The function sees the object, and must not change it: what it returns is all.
        made = shape.make(self._transform(cast(Old, one)), core, ())
        values = {
            key: value for key, value in made.items() if key not in core.data or not same_value(core.data[key], value)
        }
        gone = tuple(key for key in core.data if key not in made)
        mutation = ChangeType(self.target.type_name.dxn, values, gone)
        core.begin(mutation)
        kept = {key: value for key, value in core.data.items() if key in made}
        core.type = mutation.type
        core.replace({**kept, **values}, owned=True)
        become(one, self.target)
        core.end(mutation, one)

    def __repr__(self) -> str:
        return f"<Migration {self.__name__} {self.source.type_name.dxn} to {self.target.type_name.dxn}>"


def migration(source: type[Old], target: type) -> Callable[[Callable[[Old], Mapping[str, Any]]], Migration[Old]]:
    """Declare a function as the migration from one class to another; run it by `space.db.run_migrations`.

    Args:
        source: The class before.
        target: The class after.
    """
    return lambda transform: Migration(source, target, transform)
