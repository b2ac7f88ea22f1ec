"""The identity of a profile: its keys, its device, and the HALO space in which it keeps its own credentials.

One device for each identity so far: the HALO space is written here and read by nobody else, so it joins no swarm.
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import final

from dxos.aio import Changes
from dxos.errors import CorruptionError, IdentityExistsError, IdentityMissingError, InvalidKeyError, KeyMissingError
from dxos.feed.storage import LogStorage
from dxos.halo.auth import create_auth
from dxos.halo.credential import create_credential, create_presentation
from dxos.halo.devices import DeviceState
from dxos.halo.genesis import halo_space_genesis
from dxos.halo.profile import ProfileState
from dxos.keys import PublicKey
from dxos.keys.ids import identity_did
from dxos.spaces.pipeline import ControlPipeline
from dxos.store.metadata import MetadataStore
from dxos.store.profile import Profile
from dxos.wire import encode
from dxos.wire.proto.credentials_pb2 import (
    Credential,
    DeviceProfileDocument,
    IdentityProfile,
    ProfileDocument,
    SpaceMember,
)

_log = logging.getLogger(__name__)
_KEYS = ("identity", "device", "halo_space", "control_feed", "data_feed")
_KEYS_USED = ("device", "control_feed")  # By which this device acts, whichever device made the identity.


@final
class HaloIdentity:
    """The identity, once there is one."""

    def __init__(
        self, profile: Profile, keys: dict[str, PublicKey], open_storage: Callable[[PublicKey, PublicKey], LogStorage]
    ) -> None:
        self.identity_key = keys["identity"]
        self.device_key = keys["device"]
        self.space_key = keys["halo_space"]
        self.did = identity_did(self.identity_key)
        self._signer = profile.keyring
        self.pipeline = ControlPipeline(
            self.space_key, keys["control_feed"], open_storage=open_storage, signer=profile.keyring
        )
        self.pipeline.set_writer(keys["control_feed"])
        self.devices = DeviceState(self.identity_key)
        self.profiles = ProfileState(self.identity_key)
        self.pipeline.processed.subscribe(self._process)

    def _process(self, credential: Credential) -> None:
        self.devices.process(credential)
        self.profiles.process(credential)

    @property
    def chain(self) -> Credential:
        """The credential by which this device speaks for the identity."""
        chain = self.devices.chain(self.device_key)
        if chain is None:
            raise CorruptionError("The identity's own records do not name this device.")
        return chain

    @property
    def profile(self) -> ProfileDocument:
        """What the identity tells others about itself."""
        return self.profiles.profile or ProfileDocument()

    def prove(self, nonce: bytes, *, now_ms: int) -> bytes:
        """Answer a challenge: an encoded credential that this device acts for the identity."""
        return create_auth(
            self._signer,
            identity_key=self.identity_key,
            device_key=self.device_key,
            chain=self.chain,
            nonce=nonce,
            now_ms=now_ms,
        )

    def present(self, ids: Sequence[PublicKey], nonce: bytes | None, *, now_ms: int) -> bytes:
        """An encoded presentation of credentials of the HALO space."""
        found = (self.pipeline.state.credential(one) for one in ids)
        chosen = [one for one in found if one is not None]
        presentation = create_presentation(
            self._signer, chosen, signing_key=self.device_key, now_ms=now_ms, chain=self.chain, nonce=nonce
        )
        return encode(presentation)

    def record_membership(self, membership: SpaceMember, *, now_ms: int) -> None:
        """Note in the HALO space that the identity is a member of a space, for its other devices to find."""
        self.pipeline.write(
            create_credential(
                self._signer,
                issuer=self.identity_key,
                subject=self.identity_key,
                assertion=membership,
                now_ms=now_ms,
                signing_key=self.device_key,
                chain=self.chain,
            )
        )

    def update_profile(self, profile: ProfileDocument, *, now_ms: int) -> None:
        """Tell something else about the identity from now on."""
        self.pipeline.write(
            create_credential(
                self._signer,
                issuer=self.identity_key,
                subject=self.identity_key,
                assertion=IdentityProfile(profile=profile),
                now_ms=now_ms,
                signing_key=self.device_key,
                chain=self.chain,
            )
        )

    def __repr__(self) -> str:
        return f"<HaloIdentity {self.identity_key.truncate()} device={self.device_key.truncate()}>"


@final
class IdentityKeeper:
    """Makes the identity, or finds it on the disk.

    Args:
        profile: Where keys and records are kept.
        open_storage: Where a space, given by its key, keeps the feed of a given key.
        now_ms: Unix time in milliseconds.

    Raises:
        CorruptionError: The record of the identity is damaged.
        KeyMissingError: The keyring lacks a key by which this device acts.
    """

    def __init__(
        self, profile: Profile, *, open_storage: Callable[[PublicKey, PublicKey], LogStorage], now_ms: Callable[[], int]
    ) -> None:
        self._profile, self._open_storage, self._now_ms = profile, open_storage, now_ms
        self._metadata = MetadataStore(profile.database)
        self.changes = Changes()
        self._current: HaloIdentity | None = None
        record = self._metadata.identity()
        if record is not None:
            keys = _parse(record)
            for name in _KEYS_USED:
                # Found out now, and not when the first change or connection fails.
                if not profile.keyring.has(keys[name]):
                    raise KeyMissingError(
                        f"The keyring lacks the private key of this profile's {name}; restore it from a backup.",
                        key=keys[name].truncate(),
                    )
            self._current = self._open(keys)

    @property
    def current(self) -> HaloIdentity | None:
        """The identity, or None before one was created."""
        return self._current

    @property
    def required(self) -> HaloIdentity:
        """The identity.

        Raises:
            IdentityMissingError: There is none yet.
        """
        if self._current is None:
            raise IdentityMissingError(
                "This device has no identity yet: create one (client.halo.create_identity, or dx identity create)."
            )
        return self._current

    def create(self, profile: ProfileDocument, device_profile: DeviceProfileDocument) -> HaloIdentity:
        """Make a new identity with this device as its first; it is durable when this returns.

        Raises:
            IdentityExistsError: There is one already.
        """
        if self._current is not None:
            raise IdentityExistsError("This profile has an identity already.", did=self._current.did)
        keyring = self._profile.keyring
        keys = {name: keyring.create() for name in _KEYS}
        with self._profile.database.transaction():
            identity = self._open(keys)
            for credential in halo_space_genesis(
                keyring,
                identity_key=keys["identity"],
                device_key=keys["device"],
                space_key=keys["halo_space"],
                control_feed_key=keys["control_feed"],
                data_feed_key=keys["data_feed"],
                profile=profile,
                device_profile=device_profile,
                now_ms=self._now_ms(),
            ):
                identity.pipeline.write(credential)
            record = json.dumps({name: key.hex for name, key in keys.items()}).encode()
            self._metadata.put_identity(record)
        self._profile.sync()
        self._current = identity
        self.changes.notify()
        return identity

    def update_profile(self, profile: ProfileDocument) -> None:
        """Replace the profile; durable when this returns."""
        self.required.update_profile(profile, now_ms=self._now_ms())
        self._profile.sync()
        self.changes.notify()

    def _open(self, keys: dict[str, PublicKey]) -> HaloIdentity:
        identity = HaloIdentity(self._profile, keys, self._open_storage)
        identity.pipeline.advance()
        return identity

    def __repr__(self) -> str:
        return f"<IdentityKeeper {self._current!r}>"


def _parse(record: bytes) -> dict[str, PublicKey]:
    try:
        stored = json.loads(record)
        return {name: PublicKey.from_hex(stored[name]) for name in _KEYS}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidKeyError) as error:
        raise CorruptionError("The record of the identity is damaged; restore the profile from a backup.") from error
