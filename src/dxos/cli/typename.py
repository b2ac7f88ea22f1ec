"""The types of objects as a person names them: `example.org/type/Book`, with or without a version."""

from typing import Final

TYPE_PREFIX: Final = "dxn:type:"


def type_dxn(name: str, *, version: str | None = None) -> str:
    """The DXN of a type.

    Args:
        name: `NAME`, `NAME:VERSION`, or a whole DXN.
        version: What is added where none is named; None: nothing, which means any version.
    """
    bare = name.removeprefix(TYPE_PREFIX)
    return TYPE_PREFIX + (bare if ":" in bare or version is None else f"{bare}:{version}")
