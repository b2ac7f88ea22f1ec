"""What a client's query means to the store: filters become conditions on rows."""

from dxos.echo import query as asked
from dxos.echo.rows import Json, reference_dxn
from dxos.errors import InvalidValueError
from dxos.store import conditions as kept


def to_condition(query: asked.Query) -> kept.Condition:
    """The condition that the query's matches meet, also those of its search.

    Raises:
        InvalidValueError: It compares with a list or a map.
    """
    condition = kept.And((kept.Deleted(query.deleted), _condition(query.filter)))
    return kept.And((condition, kept.Matches((), query.search))) if query.search else condition


def searches(query: asked.Query) -> bool:
    """Whether the query is about words, whose index has to be up to date."""
    return kept.searches(to_condition(query))


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
            return kept.Equals(path, _comparable(value))
        case asked.Compare(path, comparison, limit):
            return kept.Compare(path, comparison, limit)
        case asked.OneOf(path, values):
            return kept.OneOf(path, tuple(map(_comparable, values)))
        case asked.Contains(path, value):
            return kept.Contains(path, _comparable(value))
        case asked.Missing(path):
            return kept.Missing(path)
        case asked.Matches(path, search):
            return kept.Matches(path, search)
        case asked.Refers(place, dxns):
            return kept.Refers(place, dxns)
        case asked.HasSource(dxns):
            return kept.LinkIs("source", dxns)
        case asked.HasTarget(dxns):
            return kept.LinkIs("target", dxns)
        case asked.And(filters):
            return kept.And(tuple(map(_condition, filters)))
        case asked.Or(filters):
            return kept.Or(tuple(map(_condition, filters)))
        case asked.Not(inner):
            return kept.Not(_condition(inner))


def _comparable(value: Json) -> Json:
    if isinstance(value, list | dict) and reference_dxn(value) is None:
        raise InvalidValueError("A query compares with texts, numbers, booleans, null and references only.")
    return value
