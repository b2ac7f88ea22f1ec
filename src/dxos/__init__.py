"""DXOS in Python: local-first, peer-to-peer spaces that Python and JavaScript peers share.

`Client` is where to begin; see the tutorial in the documentation.
"""

from typing import TYPE_CHECKING

from dxos.version import __version__

if TYPE_CHECKING:
    from dxos.client import (
        AuthenticatingInvitation,
        CancellableInvitation,
        Client,
        Config,
        Conflict,
        ConflictingValue,
        Database,
        DbRouter,
        Difference,
        EchoObject,
        F,
        Hit,
        Migration,
        MulticastObservable,
        Object,
        PastObject,
        PastSpace,
        Query,
        QueryUpdate,
        Ref,
        Relation,
        Revision,
        Space,
        Struct,
        Subscription,
        field,
        migration,
    )
    from dxos.client.serializer import Serializer
    from dxos.errors import DxosError
    from dxos.halo.invitation import AuthMethod, Invitation, InvitationEncoder, InvitationKind, InvitationState
    from dxos.halo.roles import SpaceRole
    from dxos.keys import PublicKey
    from dxos.services.contract import ConnectionState, Progress, SpaceArchive, SpaceState, SpaceStats, SystemStatus
else:
    # Imported when first asked for: `dx --help` must not wait for the client, nor a signalling server load it.
    _HOMES = {
        "AuthMethod": "dxos.halo.invitation",
        "AuthenticatingInvitation": "dxos.client",
        "CancellableInvitation": "dxos.client",
        "Client": "dxos.client",
        "Config": "dxos.client",
        "Conflict": "dxos.client",
        "ConflictingValue": "dxos.client",
        "ConnectionState": "dxos.services.contract",
        "Database": "dxos.client",
        "DbRouter": "dxos.client",
        "Difference": "dxos.client",
        "DxosError": "dxos.errors",
        "EchoObject": "dxos.client",
        "F": "dxos.client",
        "Hit": "dxos.client",
        "Invitation": "dxos.halo.invitation",
        "InvitationEncoder": "dxos.halo.invitation",
        "InvitationKind": "dxos.halo.invitation",
        "InvitationState": "dxos.halo.invitation",
        "Migration": "dxos.client",
        "MulticastObservable": "dxos.client",
        "Object": "dxos.client",
        "PastObject": "dxos.client",
        "PastSpace": "dxos.client",
        "Progress": "dxos.services.contract",
        "PublicKey": "dxos.keys",
        "Query": "dxos.client",
        "QueryUpdate": "dxos.client",
        "Ref": "dxos.client",
        "Relation": "dxos.client",
        "Revision": "dxos.client",
        "Serializer": "dxos.client.serializer",
        "Space": "dxos.client",
        "SpaceArchive": "dxos.services.contract",
        "SpaceRole": "dxos.halo.roles",
        "SpaceState": "dxos.services.contract",
        "SpaceStats": "dxos.services.contract",
        "Struct": "dxos.client",
        "Subscription": "dxos.client",
        "SystemStatus": "dxos.services.contract",
        "field": "dxos.client",
        "migration": "dxos.client",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'dxos' has no attribute {name!r}")
        import importlib

        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return __all__


__all__ = [
    "AuthMethod",
    "AuthenticatingInvitation",
    "CancellableInvitation",
    "Client",
    "Config",
    "Conflict",
    "ConflictingValue",
    "ConnectionState",
    "Database",
    "DbRouter",
    "Difference",
    "DxosError",
    "EchoObject",
    "F",
    "Hit",
    "Invitation",
    "InvitationEncoder",
    "InvitationKind",
    "InvitationState",
    "Migration",
    "MulticastObservable",
    "Object",
    "PastObject",
    "PastSpace",
    "Progress",
    "PublicKey",
    "Query",
    "QueryUpdate",
    "Ref",
    "Relation",
    "Revision",
    "Serializer",
    "Space",
    "SpaceArchive",
    "SpaceRole",
    "SpaceState",
    "SpaceStats",
    "Struct",
    "Subscription",
    "SystemStatus",
    "__version__",
    "field",
    "migration",
]
