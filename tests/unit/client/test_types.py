"""Classes that are schemas, without a space."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from datetime import date, datetime, timezone
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, cast
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from dxos.client.object import EchoObject
from dxos.client.types import Object, Ref, Relation, Struct, field
from dxos.errors import InvalidKeyError, InvalidValueError, UsageError


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(BaseModel):
    width: int = Field(ge=0)
    unit: str = "cm"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Mood(TypedDict, total=False):
    name: str


class Person(Object, typename="example.com/type/Person", version="0.1.0"):
    name: str


class Shop(Struct):
    name: str = ""
    aisles: list[int] = field(default_factory=list)


class Task(Object, typename="example.com/type/Task", version="0.1.0"):
    """Something to do."""

    count_max: ClassVar[int] = 3
    title: str
    done: bool = False
    price: float | None = None
    note: str | None = field(default=None, description="What else there is to say.")
    nothing: str | None
    due: date | None = None
    at: datetime | None = None
    uid: UUID | None = None
    color: Color = Color.RED
    level: Literal["low", "high"] = "low"
    stars: Annotated[int, Field(ge=0, le=5)] = 0
    either: int | str = 0
    tags: Annotated[list[str], Field(max_length=3)] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    shop: Shop = field(default_factory=Shop)
    shops: list[Shop] = field(default_factory=list)
    size: Size | None = None
    point: Point | None = None
    mood: Mood | None = None
    free: Any = None
    owner: Person | None = None
    who: Ref[Person] | None = None
    parts: list[Ref[Task]] = field(default_factory=list)
    type_: str = field(default="chore", name="type")


class Knows(Relation[Person, Person], typename="example.com/type/Knows", version="0.1.0"):
    since: int = 2000


class Event(Object, typename="example.com/type/Event", version="0.1.0"):
    kind: str
    root_map: str = ""
    stored_schema: str = ""


class Visit(Object, typename="example.com/type/Visit", version="0.1.0"):
    event: Event


def broken(namespace: dict[str, Any], **options: str) -> None:
    kind: Any = type(Object)
    kind("Broken", (Object,), namespace, **options)


def make(**values: Any) -> Task:
    return Task(**{"title": "Shop", "nothing": None, **values})


def test_new_objects_have_their_defaults_and_leave_out_what_is_optional() -> None:
    task = make()
    assert task.to_dict() == {
        "title": "Shop",
        "done": False,
        "nothing": None,
        "color": "red",
        "level": "low",
        "stars": 0,
        "either": 0,
        "tags": [],
        "counts": {},
        "shop": {"name": "", "aisles": []},
        "shops": [],
        "parts": [],
        "type": "chore",
    }
    assert task.type == "dxn:type:example.com/type/Task:0.1.0"
    assert (task.note, task.price, task.owner, task.type_, Task.count_max) == (None, None, None, "chore", 3)
    assert isinstance(task, EchoObject)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: setattr(task, "title", 3), r"Task\.title: expected a text, not 3 \(int\)"),
        (lambda task: task.update(title=None), r"Task\.title: expected a text, not None"),
        (lambda task: task.__setitem__("done", 1), r"Task\.done: expected true or false"),
        (lambda task: setattr(task, "stars", 6), r"Task\.stars: expected less than or equal to 5"),
        (lambda task: setattr(task, "stars", True), r"Task\.stars: expected a valid integer"),
        (lambda task: setattr(task, "level", "mid"), r"Task\.level: expected 'low' or 'high', not 'mid'"),
        (lambda task: setattr(task, "color", "red"), r"Task\.color: expected an instance of Color"),
        (lambda task: setattr(task, "due", "2030-01-01"), r"Task\.due: expected a valid date"),
        (lambda task: setattr(task, "either", 1.5), r"Task\.either"),
        (lambda task: setattr(task, "tags", "abc"), r"Task\.tags: expected a list"),
        (lambda task: setattr(task, "tags", [1]), r"Task\.tags\.0: expected a text"),
        (lambda task: task.tags.append(1), r"Task\.tags\.0: expected a text"),
        (lambda task: task.tags.extend("abcd"), r"Task\.tags: expected at most 3 values, not 4"),
        (lambda task: setattr(task, "tags", list("abcd")), r"Task\.tags: expected at most 3 values"),
        (lambda task: task.counts.update(milk="two"), r"Task\.counts\.milk: expected a whole number"),
        (lambda task: setattr(task.shop, "name", 1), r"Task\.shop\.name: expected a text"),
        (lambda task: task.shop.aisles.append("1"), r"Task\.shop\.aisles\.0: expected a whole number"),
        (lambda task: setattr(task, "shop", {"nam": "x"}), r"Task\.shop\.nam: the type has no such property"),
        (lambda task: setattr(task, "shop", 1), r"Task\.shop: expected a Shop"),
        (lambda task: setattr(task, "size", Size.model_construct(width=-1)), r"Task\.size\.width: expected greater"),
        (lambda task: setattr(task, "who", task), r"Task\.who: expected a Person"),
        (lambda task: setattr(task, "owner", "Ann"), r"Task\.owner: expected a reference to a Person"),
        (lambda task: task.parts.append(Ref(Person(name="x"))), r"Task\.parts\.0: expected a Task"),
        (lambda task: task.__setitem__("other", 1), r"Task\.other: the type has no such property"),
        (lambda task: task.__delitem__("title"), r"Task\.title: a value is required"),
        (lambda task: delattr(task, "done"), r"Task\.done: a value is required"),
        (lambda task: setattr(task, "free", {1}), "free: a value of type set cannot be stored"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: Callable[[Any], object], message: str) -> None:
    task = make()
    before = task.to_dict()
    with pytest.raises(InvalidValueError, match=message):
        change(task)
    assert task.to_dict() == before


def test_new_objects_are_checked_too() -> None:
    with pytest.raises(InvalidValueError, match=r"Task\.title: a value is required"):
        Task(nothing=None)  # type: ignore[call-arg]
    with pytest.raises(InvalidValueError, match=r"Task\.titel: the type has no such property"):
        make(titel="x")
    with pytest.raises(InvalidValueError, match=r"Task\.nothing: a value is required"):
        Task(title="x")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="no field 'titel'"):
        make().titel = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = make().titel  # type: ignore[attr-defined]


def test_values_that_json_lacks_are_stored_as_pydantic_writes_them_and_shown_as_themselves() -> None:
    uid = UUID(int=1)
    at = datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc)  # noqa: UP017
    task = make(due=date(2030, 1, 2), at=at, uid=uid, color=Color.BLUE)
    stored = task.to_dict()
    assert (stored["due"], stored["at"], stored["uid"]) == ("2030-01-02", "2030-01-02T03:04:00Z", str(uid))
    assert (task.due, task.at, task.uid, task.color, task["color"]) == (
        date(2030, 1, 2),
        at,
        uid,
        Color.BLUE,
        Color.BLUE,
    )
    task.due = None
    assert "due" not in task
    del task.at
    assert task.at is None


def test_structures_are_live() -> None:
    task = make(shop=Shop(name="Corner"), size=Size(width=3), point=Point(1.0), mood={"name": "good"})
    task.shop.aisles.append(3)
    task.shops.append(task.shop)
    task.shops[0].name = "Market"
    assert task.shop == Shop(name="Corner", aisles=[3])
    assert [one.to_dict() for one in task.shops] == [{"name": "Market", "aisles": [3]}]
    assert task.to_dict()["size"] == {"width": 3, "unit": "cm"}
    assert task.to_dict()["point"] == {"x": 1.0, "y": 0.0}
    assert task.mood == {"name": "good"}
    with pytest.raises(InvalidValueError, match=r"Task\.size\.width"):
        task["size"].width = -1
    with pytest.raises(AttributeError):
        task.shop.nam = "x"  # type: ignore[attr-defined]
    free = Shop()
    with pytest.raises(InvalidValueError, match="name: expected a text"):
        free.name = 1  # type: ignore[assignment]
    assert "Corner" in repr(task.shop)
    assert task.shop != {"name": "x"}


def test_references_are_objects_or_refs() -> None:
    ann = Person(name="Ann")
    task = make(owner=ann, who=Ref(ann))
    task.parts.append(Ref(task))
    assert task.owner is ann
    assert task.who is not None
    assert task.who == Ref(ann)
    assert (task.who.id, task.who.loaded, task.who.target is ann) == (ann.id, True, True)
    assert task.who in {Ref(ann)}
    assert task.parts[0].target is task
    assert "Ann" in repr(task.who)
    knows = Knows(source=ann, target=Person(name="Ben"))
    assert (knows.source, knows.target.name, knows.since) == (ann, "Ben", 2000)
    with pytest.raises(AttributeError):
        knows.source = ann
    assert copy.copy(task).to_dict() == task.to_dict()
    assert copy.copy(knows).source is ann


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (set[str], ...),
        (bytes, ...),
        (dict[int, str], ...),
        (tuple[int, int], ...),
        (list[int] | str, ...),
        (int, "x"),
        (str, None),
        (object(), ...),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_stored_is_refused_when_the_class_is_made(annotation: Any, default: Any) -> None:
    namespace = {"__annotations__": {"value": annotation}, "__module__": __name__}
    if default is not ...:
        namespace["value"] = default
    with pytest.raises((UsageError, InvalidValueError)):
        broken(namespace, typename="example.com/type/Broken", version="0.1.0")


@pytest.mark.parametrize("name", ["id", "update", "subscribe", "type", "meta"])
def test_a_name_that_is_taken_is_refused_with_what_to_write(name: str) -> None:
    namespace = {"__annotations__": {name: str}, "__module__": __name__}
    with pytest.raises(UsageError, match=f"field\\(name='{name}'\\)"):
        broken(namespace, typename="example.com/type/Broken", version="0.1.0")


@pytest.mark.parametrize(
    ("typename", "version"), [("Task", "0.1.0"), ("example.com/type/Task", "1"), ("é.com/x", "1.0.0")]
)
def test_a_name_that_javascript_refuses_is_refused(typename: str, version: str) -> None:
    with pytest.raises(InvalidKeyError):
        broken({"__module__": __name__}, typename=typename, version=version)
    with pytest.raises(UsageError, match="typename="):
        broken({"__module__": __name__})


def test_classes_inherit_fields_but_not_their_name() -> None:
    class Chore(Task, typename="example.com/type/Chore", version="0.1.0"):
        minutes: int = 5

    chore = Chore(title="Sweep", nothing=None)
    assert (chore.title, chore.minutes) == ("Sweep", 5)
    assert Chore._stored_schema().required == ["title", "nothing"]


def test_the_schema_is_in_the_form_of_the_original() -> None:
    schema = Task._stored_schema().to_data("01M7X3AKD4F9Y6YEYW7QVEXYHY")["jsonSchema"]
    assert schema["required"] == ["title", "nothing", "id"]
    assert schema["propertyOrder"][:3] == ["title", "done", "price"]
    assert schema["description"] == "Something to do."
    found = schema["properties"]
    assert found["done"] == {"type": "boolean", "default": False}
    assert found["note"] == {"type": "string", "description": "What else there is to say."}
    assert found["nothing"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert found["color"]["enum"] == ["red", "blue"]
    assert found["due"] == {"type": "string", "format": "date"}
    assert found["tags"] == {"type": "array", "items": {"type": "string"}, "maxItems": 3}
    assert found["counts"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert found["shop"]["propertyOrder"] == ["name", "aisles"]
    assert found["mood"]["required"] == []
    assert found["who"] == found["owner"]
    assert found["who"]["reference"] == {
        "schema": {"$ref": "dxn:type:example.com/type/Person"},
        "schemaVersion": "0.1.0",
    }
    relation = Knows._stored_schema().to_data("01M7X3AKD4F9Y6YEYW7QVEXYHY")["jsonSchema"]
    assert relation["entityKind"] == "relation"
    assert relation["relationSource"] == {"$ref": "dxn:type:example.com/type/Person"}


def test_fields_may_be_called_as_nothing_public_is() -> None:
    event = Event(kind="party", root_map="a", stored_schema="b")
    assert (event.kind, event.root_map, event.stored_schema) == ("party", "a", "b")
    assert event.to_dict() == {"kind": "party", "root_map": "a", "stored_schema": "b"}


@pytest.mark.parametrize("lacking", ["source", "target"])
def test_a_relation_without_an_end_is_refused_by_its_name(lacking: str) -> None:
    ends: dict[str, Any] = {"source": Person(name="Ann"), "target": Person(name="Ben")}
    del ends[lacking]
    with pytest.raises(InvalidValueError, match=rf"Knows\.{lacking}: a value is required"):
        Knows(**ends)


def test_errors_name_what_was_expected_in_english() -> None:
    with pytest.raises(InvalidValueError, match="expected an Event"):
        Visit(event=cast(Any, Person(name="Ann")))
