"""The identity, devices and contacts services."""

import platform
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, final

import anyio
from anyio.abc import TaskGroup

from dxos.aio import Changes, Subscription
from dxos.errors import DecodeError, IdentityMissingError
from dxos.halo.credential import assertion_of, credential_id
from dxos.keys import PublicKey
from dxos.keys.ids import identity_did
from dxos.services.contract import (
    Contact,
    CredentialInfo,
    Device,
    DeviceKind,
    Identity,
    Next,
    Presence,
    Profile,
)
from dxos.spaces.peer import Peer
from dxos.spaces.spaces import Spaces
from dxos.wire import encode, from_key, from_struct, from_timestamp, to_canonical_json, to_struct
from dxos.wire.proto.credentials_pb2 import Credential, DeviceProfileDocument, DeviceType, ProfileDocument

T = TypeVar("T")
_DEVICE_LABEL = "initial identity device"  # As 0.8.3 calls it.


def follow(tasks: TaskGroup, changes: Changes, read: Callable[[], T], next: Next[T]) -> Subscription:
    """Call `next` with what `read` gives, now and whenever it is another value after a change."""
    scope = anyio.CancelScope()
    present = read()

    async def watch(last: T) -> None:
        with scope:
            while True:
                value = read()  # Also at first: there may have been changes before this task began.
                if value != last:
                    last = value
                    next(value)
                await changes.wait()

    next(present)
    tasks.start_soon(watch, present)
    return Subscription(scope.cancel)


@final
class IdentityServiceHost:
    """Implements `IdentityService`."""

    def __init__(self, peer: Peer, tasks: TaskGroup) -> None:
        self._peer, self._tasks = peer, tasks

    def query_identity(self, next: Next[Identity | None]) -> Subscription:
        return follow(self._tasks, self._peer.identity.changes, self._present, next)

    async def create_identity(self, profile: Profile, device_label: str | None = None) -> Identity:
        device_profile = DeviceProfileDocument(
            label=device_label or _DEVICE_LABEL,
            platform="python",
            platform_version=platform.python_version(),
            architecture=platform.machine(),
            os=platform.system(),
            type=DeviceType.NATIVE,
        )
        self._peer.create_identity(to_profile_document(profile), device_profile)
        return self._required()

    async def update_profile(self, profile: Profile) -> Identity:
        await self._peer.update_profile(to_profile_document(profile))
        return self._required()

    async def query_credentials(
        self, *, ids: Sequence[PublicKey] | None = None, type: str | None = None
    ) -> list[CredentialInfo]:
        wanted = None if ids is None else {bytes(one) for one in ids}
        found = describe_credentials(self._peer.identity.required.pipeline.state.credentials)
        return [
            one for one in found if (wanted is None or bytes(one.id) in wanted) and (type is None or one.type == type)
        ]

    async def sign_presentation(self, ids: Sequence[PublicKey], nonce: bytes | None) -> bytes:
        return self._peer.present(ids, nonce)

    def _present(self) -> Identity | None:
        found = self._peer.identity.current
        if found is None:
            return None
        return Identity(found.identity_key, found.did, found.space_key, from_profile_document(found.profile))

    def _required(self) -> Identity:
        present = self._present()
        if present is None:
            raise IdentityMissingError("This device has no identity.")
        return present


@final
class DevicesServiceHost:
    """Implements `DevicesService`."""

    def __init__(self, peer: Peer, tasks: TaskGroup) -> None:
        self._peer, self._tasks = peer, tasks

    def query_devices(self, next: Next[tuple[Device, ...]]) -> Subscription:
        return follow(self._tasks, self._peer.identity.changes, self._present, next)

    def _present(self) -> tuple[Device, ...]:
        identity = self._peer.identity.current
        if identity is None:
            return ()
        return tuple(
            Device(
                one.device_key,
                DeviceKind.CURRENT if one.device_key == identity.device_key else DeviceKind.TRUSTED,
                Presence.ONLINE if one.device_key == identity.device_key else Presence.OFFLINE,
                one.profile.label or None,
            )
            for one in identity.devices.devices
        )


@final
class ContactsServiceHost:
    """Implements `ContactsService`."""

    def __init__(self, peer: Peer, tasks: TaskGroup) -> None:
        self._peer, self._tasks = peer, tasks
        self._known: tuple[Hashable, tuple[Contact, ...]] = (None, ())  # What the contacts were made of, and they.

    def query_contacts(self, next: Next[tuple[Contact, ...]]) -> Subscription:
        return follow(self._tasks, self._peer.changes, self._present, next)

    def _present(self) -> tuple[Contact, ...]:
        spaces, identity = self._peer.open_spaces, self._peer.identity.current
        if spaces is None or identity is None:
            return ()
        source = tuple((one.id, tuple(one.pipeline.timeframe.items())) for one in spaces.all.values())
        if self._known[0] != source:
            self._known = source, self._collect(spaces, identity.identity_key)
        return self._known[1]

    def _collect(self, spaces: Spaces, own_key: PublicKey) -> tuple[Contact, ...]:
        shared: dict[PublicKey, list[str]] = {}
        profiles: dict[PublicKey, Profile] = {}
        for space in spaces.all.values():
            for member in space.pipeline.state.members.values():
                if member.role.is_member and member.identity_key != own_key:
                    shared.setdefault(member.identity_key, []).append(space.id)
                    profiles[member.identity_key] = from_profile_document(member.profile)
        return tuple(
            Contact(key, identity_did(key), profiles[key], tuple(space_ids)) for key, space_ids in shared.items()
        )


def to_profile_document(profile: Profile) -> ProfileDocument:
    """A profile as credentials hold it."""
    return ProfileDocument(
        display_name=profile.display_name,
        avatar_cid=profile.avatar_cid,
        data=to_struct(profile.data) if profile.data else None,
    )


def from_profile_document(document: ProfileDocument | None) -> Profile:
    """A profile as clients see it."""
    if document is None:
        return Profile()
    return Profile(document.display_name or None, document.avatar_cid or None, from_struct(document.data))


def describe_credentials(credentials: Sequence[Credential]) -> list[CredentialInfo]:
    """Credentials as clients see them, in their order; those of a kind unknown here have no assertion."""
    described = []
    for credential in credentials:
        type_url = credential.subject.assertion.type_url.removeprefix(".")
        try:
            assertion = to_canonical_json(assertion_of(credential))
        except DecodeError:
            assertion = {}
        described.append(
            CredentialInfo(
                credential_id(credential),
                type_url,
                from_key(credential.issuer),
                from_key(credential.subject.id),
                from_timestamp(credential.issuance_date),
                assertion,
                encode(credential),
            )
        )
    return described
