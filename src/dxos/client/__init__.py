"""The client half: what an application holds. It speaks the service contract and nothing below it."""

from dxos.aio import Subscription
from dxos.client.client import Client
from dxos.client.config import Config
from dxos.client.database import Database
from dxos.client.invitations import AuthenticatingInvitation, CancellableInvitation
from dxos.client.live import LiveList, LiveMap
from dxos.client.object import EchoObject
from dxos.client.observable import MulticastObservable
from dxos.client.query import Query, QueryUpdate
from dxos.client.space import Space, SpaceList

__all__ = [
    "AuthenticatingInvitation",
    "CancellableInvitation",
    "Client",
    "Config",
    "Database",
    "EchoObject",
    "LiveList",
    "LiveMap",
    "MulticastObservable",
    "Query",
    "QueryUpdate",
    "Space",
    "SpaceList",
    "Subscription",
]
