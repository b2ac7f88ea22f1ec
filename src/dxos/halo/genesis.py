"""The credentials a new space begins with, in the order in which its first control feed holds them (H.1)."""

from dxos.halo.issuer import Issuer
from dxos.halo.roles import FeedDesignation, SpaceRole
from dxos.keys import PublicKey, Signer
from dxos.wire import from_key
from dxos.wire.proto.credentials_pb2 import Credential, DeviceProfileDocument, ProfileDocument


def data_space_genesis(
    signer: Signer,
    *,
    space_key: PublicKey,
    chain: Credential,
    control_feed_key: PublicKey,
    data_feed_key: PublicKey,
    automerge_root: str,
    now_ms: int,
    profile: ProfileDocument | None = None,
) -> list[Credential]:
    """The five credentials of a new data space.

    Args:
        signer: Has the private halves of the space key and of the device in `chain`.
        space_key: The new space's key; needed no more afterwards.
        chain: The AuthorizedDevice credential of this device; its issuer becomes the space's OWNER.
        control_feed_key: The feed these credentials are written to.
        data_feed_key: This device's second feed.
        automerge_root: `automerge:` and the id of the root document.
        now_ms: Unix time in milliseconds.
        profile: How the owner shows itself.
    """
    space, owner = Issuer(signer, space_key), Issuer.by_device(signer, chain)
    device_key = from_key(chain.subject.id)
    return [
        space.space_genesis(now_ms=now_ms),
        space.space_member(
            owner.key,
            SpaceRole.OWNER,
            space_key=space_key,
            genesis_feed_key=control_feed_key,
            now_ms=now_ms,
            profile=profile,
        ),
        *_feeds(owner, space_key, device_key, control_feed_key, data_feed_key, now_ms),
        owner.epoch(space_key, number=0, automerge_root=automerge_root, now_ms=now_ms),
    ]


def halo_space_genesis(
    signer: Signer,
    *,
    space_key: PublicKey,
    identity_key: PublicKey,
    device_key: PublicKey,
    control_feed_key: PublicKey,
    data_feed_key: PublicKey,
    now_ms: int,
    profile: ProfileDocument | None = None,
    device_profile: DeviceProfileDocument | None = None,
) -> list[Credential]:
    """The credentials of a new identity's own space; the identity's key signs them, for the last time.

    The device's authorisation comes after the profile: whoever waits for the device to be ready has the name by then.
    The one of kind AuthorizedDevice is the device's chain from now on.

    Args:
        signer: Has the private halves of the space key and of the identity key.
        space_key: The new space's key; needed no more afterwards.
        identity_key: The new identity.
        device_key: Its first device.
        control_feed_key: The feed these credentials are written to.
        data_feed_key: The device's second feed.
        now_ms: Unix time in milliseconds.
        profile: How the identity shows itself.
        device_profile: How the device shows itself.
    """
    space, identity = Issuer(signer, space_key), Issuer(signer, identity_key)
    credentials = [
        space.space_genesis(now_ms=now_ms),
        # 0.8.3 writes ADMIN here, and OWNER in data spaces.
        space.space_member(
            identity_key, SpaceRole.ADMIN, space_key=space_key, genesis_feed_key=control_feed_key, now_ms=now_ms
        ),
        *_feeds(identity, space_key, device_key, control_feed_key, data_feed_key, now_ms),
    ]
    if profile is not None:
        credentials.append(identity.identity_profile(profile, now_ms=now_ms))
    credentials.append(identity.authorized_device(device_key, now_ms=now_ms))
    credentials.append(identity.device_profile(device_key, device_profile or DeviceProfileDocument(), now_ms=now_ms))
    return credentials


def device_admission(
    issuer: Issuer,
    *,
    space_key: PublicKey,
    device_key: PublicKey,
    control_feed_key: PublicKey,
    data_feed_key: PublicKey,
    now_ms: int,
) -> list[Credential]:
    """The credentials by which an identity takes in one more device: its authorisation and its two feeds.

    Args:
        issuer: The identity, through a device it has.
        space_key: The identity's HALO space.
        device_key: The new device.
        control_feed_key: The new device's feeds in that space.
        data_feed_key: The new device's feeds in that space.
        now_ms: Unix time in milliseconds.
    """
    return [
        issuer.authorized_device(device_key, now_ms=now_ms),
        *_feeds(issuer, space_key, device_key, control_feed_key, data_feed_key, now_ms),
    ]


def feed_admission(
    issuer: Issuer,
    *,
    space_key: PublicKey,
    device_key: PublicKey,
    control_feed_key: PublicKey,
    data_feed_key: PublicKey,
    now_ms: int,
) -> list[Credential]:
    """The credentials by which a member makes its device's two feeds part of a data space.

    Args:
        issuer: The member.
        space_key: The space.
        device_key: The device that writes the feeds.
        control_feed_key: Its feed of credentials.
        data_feed_key: Its second feed.
        now_ms: Unix time in milliseconds.
    """
    return _feeds(issuer, space_key, device_key, control_feed_key, data_feed_key, now_ms)


def _feeds(
    issuer: Issuer,
    space_key: PublicKey,
    device_key: PublicKey,
    control_feed_key: PublicKey,
    data_feed_key: PublicKey,
    now_ms: int,
) -> list[Credential]:
    return [
        issuer.admitted_feed(
            key,
            designation,
            space_key=space_key,
            identity_key=issuer.key,
            device_key=device_key,
            now_ms=now_ms,
        )
        for key, designation in (
            (control_feed_key, FeedDesignation.CONTROL),
            (data_feed_key, FeedDesignation.DATA),
        )
    ]
