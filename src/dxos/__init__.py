"""DXOS in Python: local-first, peer-to-peer spaces that Python and JavaScript peers share.

`Client` is where to begin; see the tutorial in the documentation.
"""

from dxos.client import (
    AuthenticatingInvitation,
    CancellableInvitation,
    Client,
    Config,
    Database,
    EchoObject,
    MulticastObservable,
    Query,
    QueryUpdate,
    Space,
    Subscription,
)
from dxos.errors import DxosError
from dxos.halo.invitation import AuthMethod, Invitation, InvitationEncoder, InvitationKind, InvitationState
from dxos.halo.roles import SpaceRole
from dxos.keys import PublicKey
from dxos.services.contract import ConnectionState, SpaceState, SystemStatus

__version__ = "0.1.0"

__all__ = [
    "AuthMethod",
    "AuthenticatingInvitation",
    "CancellableInvitation",
    "Client",
    "Config",
    "ConnectionState",
    "Database",
    "DxosError",
    "EchoObject",
    "Invitation",
    "InvitationEncoder",
    "InvitationKind",
    "InvitationState",
    "MulticastObservable",
    "PublicKey",
    "Query",
    "QueryUpdate",
    "Space",
    "SpaceRole",
    "SpaceState",
    "Subscription",
    "SystemStatus",
    "__version__",
]
