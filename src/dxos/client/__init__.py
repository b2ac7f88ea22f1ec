"""The client half: what an application holds. It speaks the service contract and nothing below it."""

from dxos.aio import Subscription
from dxos.client.client import Client
from dxos.client.config import Config
from dxos.client.database import Database
from dxos.client.fields import F
from dxos.client.history import PastObject, PastSpace
from dxos.client.invitations import AuthenticatingInvitation, CancellableInvitation
from dxos.client.live import LiveList, LiveMap
from dxos.client.migrations import Migration, migration
from dxos.client.object import EchoObject
from dxos.client.observable import MulticastObservable
from dxos.client.query import Hit, Query, QueryUpdate
from dxos.client.router import DbRouter
from dxos.client.space import Space, SpaceList
from dxos.client.types import Object, Ref, Relation, Struct, field
from dxos.echo.difference import Difference
from dxos.echo.revision import Conflict, ConflictingValue, Revision

__all__ = [
    "AuthenticatingInvitation",
    "CancellableInvitation",
    "Client",
    "Config",
    "Conflict",
    "ConflictingValue",
    "Database",
    "DbRouter",
    "Difference",
    "EchoObject",
    "F",
    "Hit",
    "LiveList",
    "LiveMap",
    "Migration",
    "MulticastObservable",
    "Object",
    "PastObject",
    "PastSpace",
    "Query",
    "QueryUpdate",
    "Ref",
    "Relation",
    "Revision",
    "Space",
    "SpaceList",
    "Struct",
    "Subscription",
    "field",
    "migration",
]
