"""Queries become conditions on rows that find what the query means."""

import pytest

from dxos.echo import query as asked
from dxos.errors import InvalidValueError
from dxos.spaces.queries import to_condition, to_order
from dxos.store import conditions as kept


def test_every_filter_has_its_condition() -> None:
    everything = asked.Everything()
    filters = asked.And(
        (
            everything,
            asked.HasType("dxn:type:a"),
            asked.Or((asked.HasId(("x",)), asked.Equals(("done",), True))),
            asked.Not(everything),
        )
    )
    condition = to_condition(asked.Query(filter=filters, deleted="only"))
    assert condition == kept.And(
        (
            kept.Deleted("only"),
            kept.And(
                (
                    kept.And(()),
                    kept.TypeIs("dxn:type:a"),
                    kept.Or((kept.IdIn(("x",)), kept.Equals(("done",), True))),
                    kept.Not(kept.And(())),
                )
            ),
        )
    )


@pytest.mark.parametrize("value", [[], {}, [1]])
def test_lists_and_maps_are_not_compared(value: object) -> None:
    with pytest.raises(InvalidValueError):
        to_condition(asked.Query(filter=asked.Equals(("a",), value)))  # type: ignore[arg-type]


def test_orders_keep_their_direction() -> None:
    query = asked.Query(order=(asked.Order(("a",), descending=True), asked.Order(("b",))))
    assert to_order(query) == (kept.Order(("a",), True), kept.Order(("b",), False))


def test_references_are_compared() -> None:
    query = asked.Query(filter=asked.Equals(("to",), {"/": "dxn:echo:@:X"}))
    assert to_condition(query) == kept.And((kept.Deleted("exclude"), kept.Equals(("to",), {"/": "dxn:echo:@:X"})))
