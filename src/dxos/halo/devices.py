"""Which devices speak for an identity, how they show themselves, and the chain by which each does so."""

from typing import final

from msgspec import Struct
from msgspec.structs import replace

from dxos.errors import DecodeError
from dxos.halo.credential import assertion_of, is_device_authorization
from dxos.keys import PublicKey
from dxos.limits import DEVICES_MAX
from dxos.wire import from_key
from dxos.wire.proto.credentials_pb2 import AuthorizedDevice, Credential, DeviceProfile, DeviceProfileDocument


@final
class DeviceInfo(Struct, frozen=True):
    """One device of an identity."""

    device_key: PublicKey
    credential: Credential  # The AuthorizedDevice credential: the chain of what the device signs.
    profile: DeviceProfileDocument  # Empty until the device has described itself.


@final
class DeviceState:
    """The devices of one identity, from the verified credentials of its HALO space in order."""

    def __init__(self, identity_key: PublicKey) -> None:
        self._identity_key = identity_key
        self._devices: dict[PublicKey, DeviceInfo] = {}
        # A profile may be read before the authorisation that another feed holds.
        self._early_profiles: dict[PublicKey, DeviceProfileDocument] = {}

    @property
    def devices(self) -> tuple[DeviceInfo, ...]:
        """All devices, in the order in which they were authorised."""
        return tuple(self._devices.values())

    def is_authorized(self, device_key: PublicKey) -> bool:
        """Whether the device speaks for the identity."""
        return device_key in self._devices

    def device(self, device_key: PublicKey) -> DeviceInfo | None:
        """One device, or None if it is not authorised."""
        return self._devices.get(device_key)

    def chain(self, device_key: PublicKey) -> Credential | None:
        """The credential to attach to what the device signs, or None if it is not authorised yet."""
        device = self._devices.get(device_key)
        return None if device is None else device.credential

    def process(self, credential: Credential) -> DeviceInfo | None:
        """Take in a verified credential; the device it changed, or None. Other kinds are passed over."""
        try:
            assertion = assertion_of(credential)
        except DecodeError:
            return None
        device_key = from_key(credential.subject.id)
        match assertion:
            case AuthorizedDevice():
                # 0.8.3 takes any issuer; here only the identity itself, or a device it authorised, adds devices.
                if device_key in self._devices:
                    return None
                if not is_device_authorization(credential, self._identity_key, device_key):
                    return None
                profile = self._early_profiles.pop(device_key, None) or DeviceProfileDocument()
                info = DeviceInfo(device_key, credential, profile)
            case DeviceProfile():
                if from_key(credential.issuer) not in (self._identity_key, device_key):
                    return None
                known = self._devices.get(device_key)
                if known is None:
                    if len(self._early_profiles) < DEVICES_MAX:
                        self._early_profiles[device_key] = assertion.profile
                    return None
                info = replace(known, profile=assertion.profile)
            case _:
                return None
        self._devices[device_key] = info
        return info

    def __repr__(self) -> str:
        return f"<DeviceState {self._identity_key.truncate()} devices={len(self._devices)}>"
