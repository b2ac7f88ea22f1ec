"""Types of objects: their names, and the JSON Schemas that a space keeps of them, in the form of 0.8.3.

type    dxn:type:<typename>:<version>             example.com/type/Task, 0.1.0
stored  an object of the type dxn:type:dxos.org/type/Schema:0.1.0 with the data
        {typename, version, kind, jsonSchema: {$schema, $id, entityKind, properties, required, propertyOrder, …}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, final

from msgspec import Struct, field
from msgspec.structs import replace

from dxos.echo.rows import KINDS, Kind
from dxos.errors import InvalidKeyError, UsageError

SCHEMA_TYPE: Final = "dxn:type:dxos.org/type/Schema:0.1.0"
ANY_TYPE: Final = "dxn:type:dxos.org/type/Expando"  # What a reference to an object of any type names.
ANY_VERSION: Final = "0.1.0"
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_REFERENCE: Final = "/schemas/echo/ref"
# As 0.8.3 checks them: a stored schema with another name would make its client throw.
_TYPENAME: Final = re.compile(r"[a-zA-Z]\w+\.[a-zA-Z]\w+/[\w/_-]+", re.ASCII)
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+", re.ASCII)


@final
class TypeName(Struct, frozen=True):
    """The name of a type and its version.

    Raises:
        InvalidKeyError: One that 0.8.3 does not accept.
    """

    typename: str  # `example.com/type/Task`
    version: str  # `0.1.0`

    def __post_init__(self) -> None:
        if not _TYPENAME.fullmatch(self.typename):
            raise InvalidKeyError(f"{self.typename!r:.80} is no name of a type; write one like example.com/type/Task.")
        if not _VERSION.fullmatch(self.version):
            raise InvalidKeyError(f"{self.version!r:.40} is no version of a type; write one like 0.1.0.")

    @property
    def dxn(self) -> str:
        """`dxn:type:<typename>:<version>`."""
        return f"dxn:type:{self.typename}:{self.version}"


@final
class StoredSchema(Struct, frozen=True):
    """A schema that a space keeps, so that every peer can read the objects of its type."""

    name: TypeName
    properties: Mapping[str, Any]  # JSON Schemas by property name, in the order of the type; without `id`.
    required: Sequence[str] = ()
    kind: Kind = "object"
    source: str | None = None  # The types that a relation connects, as `dxn:type:…`.
    target: str | None = None
    description: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self, object_id: str) -> dict[str, Any]:
        """The data of the object with that id which keeps the schema."""
        dxn = f"dxn:echo:@:{object_id}"
        json_schema: dict[str, Any] = {"$schema": _DRAFT, "$id": dxn, "entityKind": self.kind}
        json_schema |= {"typename": self.name.typename, "version": self.name.version}
        if self.source is not None and self.target is not None:
            json_schema |= {"relationSource": {"$ref": self.source}, "relationTarget": {"$ref": self.target}}
        json_schema |= {
            "type": "object",
            "properties": {"id": {"type": "string"}, **self.properties},
            "required": [*self.required, "id"],
            "propertyOrder": [*self.properties, "id"],
            "additionalProperties": False,
            "annotations": {**self.annotations, "schemaId": dxn},
        }
        if self.description is not None:
            json_schema["description"] = self.description
        name = {"typename": self.name.typename, "version": self.name.version}
        return {**name, "kind": self.kind, "jsonSchema": json_schema}

    def extended_by(self, other: StoredSchema) -> StoredSchema:
        """This schema, with what another of the same name and version allows besides: further optional properties.

        Raises:
            UsageError: An object of the other schema would not fit this one, or the other way round.
        """
        if other.kind != self.kind:
            raise self._refusal(f"is that of a kind of {self.kind}")
        for name, kept in self.properties.items():
            if name not in other.properties:
                if name in self.required:
                    raise self._refusal(f"requires {name!r}")
            elif not _fits(other.properties[name], kept):
                raise self._refusal(f"says that {name!r} is {_told(kept)}, not {_told(other.properties[name])}")
        further = {name: one for name, one in other.properties.items() if name not in self.properties}
        for name in further:
            if name in other.required:
                raise self._refusal(f"has no {name!r}, which must be optional if it is new")
        return replace(self, properties={**self.properties, **further})

    def _refusal(self, why: str) -> UsageError:
        return UsageError(
            f"The schema of {self.name.typename} {self.name.version} that the space keeps {why}; give yours a higher "
            "version, and a migration."
        )

    @classmethod
    def from_data(cls, untrusted: Mapping[str, Any]) -> StoredSchema | None:
        """The schema that an object keeps; None where it keeps none that makes sense."""
        match untrusted:
            case {"typename": str(typename), "version": str(version), "jsonSchema": dict(json_schema)}:
                pass
            case _:
                return None
        found = json_schema.get("properties")
        properties = dict(found) if isinstance(found, dict) else {}
        properties.pop("id", None)
        order = json_schema.get("propertyOrder")
        if isinstance(order, list):
            places = {name: place for place, name in enumerate(order) if isinstance(name, str)}
            properties = dict(sorted(properties.items(), key=lambda item: places.get(item[0], len(order))))
        required = json_schema.get("required")
        kind, description = json_schema.get("entityKind"), json_schema.get("description")
        try:
            name = TypeName(typename, version)
        except InvalidKeyError:
            return None
        return cls(
            name,
            properties,
            [one for one in required if isinstance(one, str) and one in properties]
            if isinstance(required, list)
            else (),
            cast(Kind, kind) if kind in KINDS else "object",
            _target(json_schema.get("relationSource")),
            _target(json_schema.get("relationTarget")),
            description if isinstance(description, str) else None,
        )


def _kinds(schema: object) -> frozenset[str] | None:
    """What kinds of values a JSON Schema allows; None where that is not known."""
    match schema:
        case {"reference": _}:
            return frozenset({"reference"})
        case {"type": str(one)}:
            return frozenset({one})
        case {"anyOf": list(several)}:
            kinds = [_kinds(one) for one in several]
            known = [one for one in kinds if one is not None]
            return frozenset().union(*known) if len(known) == len(kinds) else None
    return None


def _fits(schema: object, kept: object) -> bool:
    """Whether values of one JSON Schema are, as far as that is told at a glance, of the kinds of another."""
    kinds, allowed = _kinds(schema), _kinds(kept)
    if kinds is None or allowed is None:
        return True
    return kinds <= (allowed | {"integer"} if "number" in allowed else allowed)


def _told(schema: object) -> str:
    return " or ".join(sorted(_kinds(schema) or {"something else"}))


def reference_schema(name: TypeName | None) -> dict[str, Any]:
    """The JSON Schema of a reference to an object of a type; None: of any."""
    target, version = (ANY_TYPE, ANY_VERSION) if name is None else (f"dxn:type:{name.typename}", name.version)
    return {"$id": _REFERENCE, "reference": {"schema": {"$ref": target}, "schemaVersion": version}}


def _target(untrusted: object) -> str | None:
    found = untrusted.get("$ref") if isinstance(untrusted, dict) else None
    return found if isinstance(found, str) else None
