"""Credentials, chains, answers to challenges and presentations: what verifies, and everything that must not."""

import pytest
from halo_people import Ring

from dxos.errors import DecodeError, KeyMissingError, LimitError, ProofError
from dxos.halo.auth import create_auth, verify_auth
from dxos.halo.credential import (
    assertion_of,
    create_presentation,
    credential_id,
    decode_credential,
    verify_credential,
    verify_presentation,
)
from dxos.halo.feed_message import decode_feed_message, encode_feed_message
from dxos.halo.issuer import Issuer
from dxos.keys import PublicKey
from dxos.limits import CHAIN_DEPTH_MAX, CREDENTIAL_BYTES_MAX, PARENTS_MAX
from dxos.wire import encode, to_key
from dxos.wire.proto.credentials_pb2 import Auth, AuthorizedDevice, Credential, IdentityProfile, ProfileDocument

NOW = 1_740_000_000_000
NONCE = b"n" * 32


class Alice:
    """An identity with one device."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.key, self.device = ring.create(), ring.create()
        self.root = Issuer(ring, self.key)
        self.chain = self.root.authorized_device(self.device, now_ms=NOW)
        self.issuer = Issuer.by_device(ring, self.chain)


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def alice(ring: Ring) -> Alice:
    return Alice(ring)


def test_a_device_signs_for_its_identity(alice: Alice) -> None:
    credential = alice.issuer.identity_profile(ProfileDocument(display_name="alice"), now_ms=NOW)
    read = decode_credential(encode(credential))
    assert verify_credential(read) == credential_id(read) == PublicKey(credential.id.data)
    assertion = assertion_of(read)
    assert isinstance(assertion, IdentityProfile)
    assert assertion.profile.display_name == "alice"


def test_a_key_that_is_not_there_cannot_sign(ring: Ring) -> None:
    with pytest.raises(KeyMissingError):
        Issuer(ring, PublicKey(b"\x04" * 65)).issue(PublicKey(b"x"), Auth(), now_ms=NOW)


def test_a_device_of_a_device_of_a_device_speaks_for_the_identity(ring: Ring, alice: Alice) -> None:
    chain, issuer = alice.chain, alice.issuer
    for _ in range(CHAIN_DEPTH_MAX - 1):
        chain = issuer.authorized_device(ring.create(), now_ms=NOW)
        issuer = Issuer.by_device(ring, chain)
        verify_credential(issuer.issue(alice.key, Auth(), now_ms=NOW))
    chain = issuer.authorized_device(ring.create(), now_ms=NOW)
    with pytest.raises(ProofError, match="too long"):
        Issuer.by_device(ring, chain).issue(alice.key, Auth(), now_ms=NOW)


def test_a_chain_is_needed_and_must_fit(ring: Ring, alice: Alice) -> None:
    bob = Alice(ring)
    good = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    for chain in (None, bob.chain, bob.issuer.issue(alice.device, Auth(), now_ms=NOW), good):
        credential = Credential.FromString(good.SerializeToString())
        credential.proof.ClearField("chain")
        if chain is not None:
            credential.proof.chain.credential.CopyFrom(chain)
        with pytest.raises(ProofError):
            verify_credential(credential)


def test_a_device_cannot_authorise_itself(ring: Ring, alice: Alice) -> None:
    thief = ring.create()
    assertion = AuthorizedDevice(identity_key=to_key(alice.key), device_key=to_key(thief))
    own = Issuer(ring, thief).issue(thief, assertion, now_ms=NOW)
    with pytest.raises(ProofError):
        Issuer(ring, alice.key, thief, own).issue(alice.key, Auth(), now_ms=NOW)
    forged = Credential.FromString(own.SerializeToString())
    forged.issuer.CopyFrom(to_key(alice.key))
    with pytest.raises(ProofError):
        verify_credential(forged)


def test_two_devices_that_authorise_each_other_prove_nothing(ring: Ring, alice: Alice) -> None:
    first, second = ring.create(), ring.create()

    def authorization(device: PublicKey, signer: PublicKey, chain: Credential | None) -> Credential:
        made = Issuer(ring, signer).issue(
            device, AuthorizedDevice(identity_key=to_key(alice.key), device_key=to_key(device)), now_ms=NOW
        )
        made.issuer.CopyFrom(to_key(alice.key))
        if chain is not None:
            made.proof.chain.credential.CopyFrom(chain)
        return made

    chain = None
    for _ in range(3):
        chain = authorization(first, second, authorization(second, first, chain))
    assert chain is not None
    with pytest.raises(ProofError):
        verify_credential(chain)


def test_an_altered_chain_is_refused_though_the_good_one_was_seen(alice: Alice) -> None:
    credential = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    verify_credential(credential)
    credential.proof.chain.credential.proof.value = bytes(64)
    with pytest.raises(ProofError):
        verify_credential(credential)


def test_an_id_of_something_else_or_none_is_refused(alice: Alice) -> None:
    credential = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    credential.id.data = bytes(32)
    with pytest.raises(ProofError):
        verify_credential(credential)
    credential.ClearField("id")
    with pytest.raises(ProofError):
        verify_credential(credential)


def test_a_proof_of_another_type_is_refused(alice: Alice) -> None:
    credential = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    credential.proof.type = "none"
    with pytest.raises(ProofError):
        verify_credential(credential)


@pytest.mark.parametrize("field", ["issuer", "subject", "proof"])
def test_a_credential_without_a_part_is_refused(alice: Alice, field: str) -> None:
    credential = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    credential.ClearField(field)
    with pytest.raises(DecodeError):
        decode_credential(credential.SerializeToString())


def test_a_credential_of_unknown_kind_is_refused(alice: Alice) -> None:
    credential = alice.issuer.issue(alice.key, Auth(), now_ms=NOW)
    credential.subject.assertion.type_url = "dxos.halo.credentials.Unheard"
    with pytest.raises(DecodeError):
        verify_credential(credential)


def test_sizes_are_bounded(alice: Alice) -> None:
    credential = alice.root.issue(alice.key, Auth(), now_ms=NOW, parents=[PublicKey(b"p" * 32)] * (PARENTS_MAX + 1))
    with pytest.raises(LimitError):
        decode_credential(encode(credential))
    with pytest.raises(LimitError):
        decode_credential(bytes(CREDENTIAL_BYTES_MAX + 1))


def test_a_data_space_is_entered_by_an_identity_and_a_halo_space_by_a_device(ring: Ring, alice: Alice) -> None:
    for chain, issuer in ((alice.chain, alice.key), (None, alice.device)):
        answer = create_auth(
            ring, identity_key=alice.key, device_key=alice.device, chain=chain, nonce=NONCE, now_ms=NOW
        )
        answered = verify_auth(answer, NONCE)
        assert (answered.issuer, answered.device_key) == (issuer, alice.device)
        for other in (b"m" * 32, NONCE[:-1]):
            with pytest.raises(ProofError):
                verify_auth(answer, other)


def test_only_an_answer_is_an_answer(alice: Alice) -> None:
    profile = alice.issuer.issue(alice.key, IdentityProfile(), now_ms=NOW, nonce=NONCE)
    with pytest.raises(ProofError):
        verify_auth(encode(profile), NONCE)
    for_another = alice.issuer.issue(alice.device, Auth(), now_ms=NOW, nonce=NONCE)
    with pytest.raises(ProofError):
        verify_auth(encode(for_another), NONCE)


def test_a_holder_presents_credentials(ring: Ring, alice: Alice) -> None:
    bob = Alice(ring)
    about_alice = bob.issuer.issue(alice.key, IdentityProfile(), now_ms=NOW)
    shown = create_presentation(
        ring, [about_alice], signing_key=alice.device, chain=alice.chain, nonce=NONCE, now_ms=NOW
    )
    verify_presentation(shown, nonce=NONCE)
    with pytest.raises(ProofError):
        verify_presentation(shown, nonce=b"another")
    stolen = create_presentation(ring, [about_alice], signing_key=ring.create(), nonce=NONCE, now_ms=NOW)
    with pytest.raises(ProofError):
        verify_presentation(stolen, nonce=NONCE)
    shown.ClearField("proofs")
    with pytest.raises(ProofError):
        verify_presentation(shown)


def test_a_block_holds_a_credential_and_a_timeframe(alice: Alice) -> None:
    timeframe = ((PublicKey(b"f" * 65), 0), (PublicKey(b"g" * 65), 7))
    entry = decode_feed_message(encode_feed_message(alice.chain, timeframe))
    assert entry.timeframe == timeframe
    assert entry.credential == alice.chain
    # A block of a data feed.
    assert decode_feed_message(bytes.fromhex("0a0012045a021200")).credential is None
    with pytest.raises(DecodeError):
        decode_feed_message(bytes.fromhex("0a00120252 00".replace(" ", "")))
