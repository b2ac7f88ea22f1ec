"""What a client's query means to the store: filters become conditions on rows."""

from dxos.echo import query as asked
from dxos.echo.rows import reference_dxn
from dxos.errors import InvalidValueError
from dxos.store import conditions as kept


def to_condition(query: asked.Query) -> kept.Condition:
    """The condition that the query's matches meet.

    Raises:
        InvalidValueError: It compares with a list, or a map that is no reference.
    """
    return kept.And((kept.Deleted(query.deleted), _condition(query.filter)))


def to_order(query: asked.Query) -> tuple[kept.Order, ...]:
    """What the matches are sorted by."""
    return tuple(kept.Order(order.path, order.descending) for order in query.order)


def _condition(filter: asked.Filter) -> kept.Condition:
    match filter:
        case asked.Everything():
            return kept.And(())
        case asked.HasType(type):
            return kept.TypeIs(type)
        case asked.HasId(object_ids):
            return kept.IdIn(object_ids)
        case asked.Equals(path, value):
            if isinstance(value, list | dict) and reference_dxn(value) is None:
                raise InvalidValueError("A query compares with texts, numbers, booleans, null and references only.")
            return kept.Equals(path, value)
        case asked.And(filters):
            return kept.And(tuple(map(_condition, filters)))
        case asked.Or(filters):
            return kept.Or(tuple(map(_condition, filters)))
        case asked.Not(inner):
            return kept.Not(_condition(inner))
