"""`HaloProxy`: the identity of this profile, its devices, contacts and credentials."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from dxos.client.database import Spawn
from dxos.client.invitations import CancellableInvitation, InvitationsProxy
from dxos.client.live import plain_object
from dxos.client.observable import MulticastObservable, Source
from dxos.errors import DxosError, IdentityMissingError
from dxos.halo.invitation import InvitationKind
from dxos.keys import PublicKey
from dxos.services import contract
from dxos.services.contract import Contact, CredentialInfo, Device, DeviceKind, Identity, Profile, Services

DEFAULT_SPACE: Final = "dxos.halo.credentials.DefaultSpace"

_log = logging.getLogger("dxos.client")


@final
class HaloProxy:
    """The identity of this profile."""

    def __init__(self, services: Services, invitations: InvitationsProxy, spawn: Spawn) -> None:
        self._services, self._invitations, self._spawn = services, invitations, spawn
        self._identity: Source[Identity | None] = Source(None)
        self._devices: Source[tuple[Device, ...]] = Source(())
        self._contacts: Source[tuple[Contact, ...]] = Source(())
        self._credentials: Source[tuple[CredentialInfo, ...]] = Source(())
        self._reading, self._stale = False, False
        self._streams: list[contract.Subscription] = []

    @property
    def identity(self) -> MulticastObservable[Identity | None]:
        """The identity; None until one is created."""
        return self._identity

    @property
    def devices(self) -> MulticastObservable[tuple[Device, ...]]:
        """The devices that may act for the identity, in the order in which they were authorised."""
        return self._devices

    @property
    def contacts(self) -> MulticastObservable[tuple[Contact, ...]]:
        """Identities that share a space with this one."""
        return self._contacts

    @property
    def credentials(self) -> MulticastObservable[tuple[CredentialInfo, ...]]:
        """Credentials of the identity, in the order in which they were processed; follows a moment behind."""
        return self._credentials

    @property
    def invitations(self) -> MulticastObservable[tuple[CancellableInvitation, ...]]:
        """Open invitations for further devices."""
        return self._invitations.created.map(
            lambda all_: tuple(one for one in all_ if one.get().kind is InvitationKind.DEVICE)
        )

    @property
    def device(self) -> Device | None:
        """This device; None without an identity."""
        return next((one for one in self._devices.get() if one.kind is DeviceKind.CURRENT), None)

    @property
    def profile(self) -> Profile | None:
        """What the identity tells others about itself; None without an identity."""
        identity = self._identity.get()
        return None if identity is None else identity.profile

    async def create_identity(
        self,
        display_name: str | None = None,
        *,
        avatar_cid: str | None = None,
        data: Mapping[str, Any] | None = None,
        device_label: str | None = None,
    ) -> Identity:
        """Create the identity of this profile; unlike in JavaScript, no space is made with it.

        Args:
            display_name: How others see the user; at most 1,000 characters.
            avatar_cid: Where the picture is.
            data: What an application adds to the profile.
            device_label: How this device is listed.

        Raises:
            IdentityExistsError: There is one already.
        """
        profile = Profile(display_name, avatar_cid, plain_object(data))
        return self._learn(await self._services.identity.create_identity(profile, device_label))

    async def create_profile(self, display_name: str | None = None) -> Profile:
        """The older name of `create_identity`; gives the profile."""
        return (await self.create_identity(display_name)).profile

    async def update_profile(
        self,
        display_name: str | None = None,
        *,
        avatar_cid: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Identity:
        """Replace the profile; what is not given is not in the new one.

        Raises:
            IdentityMissingError: There is no identity.
        """
        self._require()
        profile = Profile(display_name, avatar_cid, plain_object(data))
        return self._learn(await self._services.identity.update_profile(profile))

    async def query_credentials(
        self, *, ids: Sequence[PublicKey] | None = None, type: str | None = None
    ) -> list[CredentialInfo]:
        """Credentials of the identity, in the order in which they were processed.

        Args:
            ids: Only these.
            type: Only of this type; a full name such as `dxos.halo.credentials.AdmittedFeed`.

        Raises:
            IdentityMissingError: There is no identity.
        """
        self._require()
        return await self._services.identity.query_credentials(ids=ids, type=type)

    async def present_credentials(self, ids: Sequence[PublicKey], nonce: bytes | None = None) -> bytes:
        """An encoded Presentation of credentials, signed by this device.

        Args:
            ids: Of the credentials.
            nonce: What the verifier gave, so that the presentation is good for nobody else.

        Raises:
            IdentityMissingError: There is no identity.
        """
        self._require()
        return await self._services.identity.sign_presentation(ids, nonce)

    def to_json(self) -> dict[str, str]:
        """The first digits of the keys, for people to tell identities apart."""
        identity, device = self._identity.get(), self.device
        result = {}
        if identity is not None:
            result["identityKey"] = identity.identity_key.truncate()
        if device is not None:
            result["deviceKey"] = device.device_key.truncate()
        return result

    def _require(self) -> None:
        if self._identity.get() is None:
            raise IdentityMissingError("This device has no identity yet: call `halo.create_identity()` first.")

    def _learn(self, identity: Identity) -> Identity:
        # So that the observable has it when the call returns, whichever of the two messages came first.
        if self._identity.get() != identity:
            self._receive_identity(identity)
        return identity

    def _receive_identity(self, identity: Identity | None) -> None:
        self._identity._next(identity)
        self._read_credentials()

    def _read_credentials(self) -> None:
        self._stale = True
        if not self._reading:
            self._reading = True
            self._spawn(self._read_all_credentials)

    async def _read_all_credentials(self) -> None:
        try:
            while self._stale:
                self._stale = False
                if self._identity.get() is None:
                    found: list[CredentialInfo] = []
                else:
                    found = await self._services.identity.query_credentials()
                if tuple(found) != self._credentials.get():
                    self._credentials._next(tuple(found))
        except DxosError as error:
            _log.warning("The identity's credentials could not be read: %s", error)
        finally:
            self._reading = False

    def _default_space_id(self) -> str | None:
        """The space that the identity calls its default one."""
        for credential in reversed(self._credentials.get()):
            if credential.type == DEFAULT_SPACE:
                found = credential.assertion.get("spaceId")
                return found if isinstance(found, str) else None
        return None

    def _open(self) -> None:
        self._streams = [
            self._services.identity.query_identity(self._receive_identity),
            self._services.devices.query_devices(self._devices._next),
            self._services.contacts.query_contacts(self._contacts._next),
        ]

    def _stop(self) -> None:
        for stream in self._streams:
            stream.unsubscribe()

    def _end(self) -> None:
        self._identity._next(None)
        self._devices._next(())
        self._contacts._next(())
        self._credentials._next(())
        for source in (self._identity, self._devices, self._contacts, self._credentials):
            source._complete()

    def __repr__(self) -> str:
        identity = self._identity.get()
        return f"<HaloProxy {'no identity' if identity is None else identity.identity_key.truncate()}>"
