"""Credentials and presentations: claims that somebody signed, made and verified (wire reference, section C).

Invariants:
    1. What is signed is canonical JSON of the credential without its id, its chain and its signature.
    2. A credential's id is the SHA-256 of what is signed, so two credentials with one id make the same claim.
    3. If the signer is not the issuer, a chain of AuthorizedDevice credentials leads from the signer to the issuer.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.message import Message

from dxos.errors import DecodeError, LimitError, ProofError
from dxos.keys import PublicKey, Signer, verify
from dxos.limits import CHAIN_DEPTH_MAX, CREDENTIAL_BYTES_MAX, NOTARIZE_CREDENTIALS_MAX, PARENTS_MAX
from dxos.wire import (
    Json,
    canonical,
    decode,
    from_key,
    pack_any,
    to_canonical_json,
    to_key,
    to_timestamp,
    unpack_any,
)
from dxos.wire.proto.credentials_pb2 import AuthorizedDevice, Claim, Credential, Presentation, Proof

# The keys are P-256 all the same: 0.8.3 kept the name when it changed the curve, and checks it.
PROOF_TYPE: Final = "ED25519Signature"
_CHAINS_CACHED_MAX: Final = 256
_CACHED_BYTES_MAX: Final = 8 * 1024


def create_credential(
    signer: Signer,
    *,
    issuer: PublicKey,
    subject: PublicKey,
    assertion: Message,
    now_ms: int,
    signing_key: PublicKey | None = None,
    chain: Credential | None = None,
    nonce: bytes | None = None,
    parents: Iterable[PublicKey] = (),
) -> Credential:
    """Make and sign a credential.

    Args:
        signer: Has the private half of `signing_key`, or of `issuer` without one.
        issuer: Who makes the claim.
        subject: Whom or what the claim is about.
        assertion: The claim: a message of `dxos.halo.credentials` or `dxos.halo.invitations`.
        now_ms: Unix time in milliseconds.
        signing_key: The device that signs for the issuer; given together with `chain`.
        chain: The AuthorizedDevice credential by which the issuer trusts `signing_key`.
        nonce: A challenge that is being answered.
        parents: Ids of the credentials this one builds on; of SpaceMember credentials, `MemberGraph.heads`.

    Raises:
        ProofError: The chain does not lead from `signing_key` to `issuer`.
        KeyMissingError: The signer lacks the key.
    """
    assert (signing_key is None) == (chain is None), "a chain is given exactly if another key signs"
    if signing_key is not None and chain is not None:
        _verify_chain(chain, issuer, signing_key, depth=1)
    key = issuer if signing_key is None else signing_key
    now = to_timestamp(now_ms)
    credential = Credential(
        issuer=to_key(issuer),
        issuance_date=now,
        subject=Claim(id=to_key(subject), assertion=pack_any(assertion)),
        proof=Proof(type=PROOF_TYPE, creation_date=now, signer=to_key(key), nonce=nonce, value=b""),
        parent_credential_ids=[to_key(parent) for parent in parents],
    )
    payload = credential_payload(credential)
    credential.proof.value = signer.sign(key, payload)
    if chain is not None:
        credential.proof.chain.credential.CopyFrom(chain)
    credential.id.CopyFrom(to_key(_id_of(payload)))
    return credential


def decode_credential(untrusted: bytes) -> Credential:
    """Read a credential and check its form, not yet its proof.

    Raises:
        LimitError: Too long, or too many parents.
        DecodeError: Not a credential, or one without issuer, subject, assertion or proof.
    """
    credential = decode(Credential, untrusted, bytes_max=CREDENTIAL_BYTES_MAX)
    check_form(credential)
    return credential


def check_form(untrusted: Credential) -> None:
    """Check that a credential that came inside a larger message has all its parts.

    Raises:
        LimitError: Too long, or too many parents.
        DecodeError: One without issuer, subject, assertion or proof.
    """
    if untrusted.ByteSize() > CREDENTIAL_BYTES_MAX:
        raise LimitError("A credential is too long.", bytes_max=CREDENTIAL_BYTES_MAX)
    if len(untrusted.parent_credential_ids) > PARENTS_MAX:
        raise LimitError("A credential has too many parents.", count_max=PARENTS_MAX)
    if not untrusted.issuer.data or not untrusted.subject.id.data or not untrusted.subject.assertion.type_url:
        raise DecodeError("A credential lacks its issuer, subject or assertion.")
    if not untrusted.HasField("proof"):
        raise DecodeError("A credential lacks its proof.")


def credential_payload(credential: Credential) -> bytes:
    """The bytes that are signed."""
    copy = Credential()
    copy.CopyFrom(credential)
    copy.ClearField("id")
    copy.proof.ClearField("chain")
    copy.proof.value = b""
    return canonical(_without_empty_parents(copy))


def credential_id(credential: Credential) -> PublicKey:
    """The credential's id, computed from what was signed: 32 bytes."""
    return _id_of(credential_payload(credential))


def _id_of(payload: bytes) -> PublicKey:
    return PublicKey(hashlib.sha256(payload).digest())


def assertion_of(credential: Credential) -> Message:
    """The claim.

    Raises:
        DecodeError: Of a kind unknown here, or malformed.
    """
    return unpack_any(credential.subject.assertion)


def issuer_of(credential: Credential) -> PublicKey:
    """Who makes the claim."""
    return from_key(credential.issuer)


def subject_of(credential: Credential) -> PublicKey:
    """Whom or what the claim is about."""
    return from_key(credential.subject.id)


def verify_credential(untrusted: Credential) -> PublicKey:
    """Check form, chain, signature and id.

    Expiry is not checked, as 0.8.3 does not check it either: peers must agree on what is valid.

    Returns:
        The id, computed anew.

    Raises:
        ProofError: The chain or the signature does not verify, or the id is another.
        DecodeError: It lacks a part, or has one that does not parse.
        LimitError: Larger than the limits allow.
    """
    return _verify_credential(untrusted, depth=0)


def _verify_credential(untrusted: Credential, *, depth: int) -> PublicKey:
    check_form(untrusted)
    proof = untrusted.proof
    if proof.type != PROOF_TYPE:
        raise ProofError("A credential has a proof of an unknown type.")
    issuer, signer = from_key(untrusted.issuer), from_key(proof.signer)
    if issuer != signer:
        if not proof.HasField("chain"):
            raise ProofError("A credential signed for another key lacks its chain.", issuer=issuer.truncate())
        _verify_chain(proof.chain.credential, issuer, signer, depth=depth + 1)
    payload = credential_payload(untrusted)
    verify(signer, payload, proof.value)
    computed = _id_of(payload)
    # 0.8.3 takes one without an id, and fails on it later: such must not get into a feed.
    if from_key(untrusted.id) != computed:
        raise ProofError("A credential's id is not that of its content.")
    return computed


def _verify_chain(untrusted: Credential, issuer: PublicKey, signer: PublicKey, *, depth: int) -> None:
    """Check that the issuer authorised the signer as a device, itself or through another device."""
    # Each link is inside the next, so a chain ends; a cycle of devices never reaches one that the issuer signed.
    if depth > CHAIN_DEPTH_MAX:
        raise ProofError("A chain of credentials is too long.", depth_max=CHAIN_DEPTH_MAX)
    if not is_device_authorization(untrusted, issuer, signer):
        raise ProofError("A chain does not lead to the issuer.", issuer=issuer.truncate(), signer=signer.truncate())
    # The same chain comes with everything a device signs.
    if depth == 1 and untrusted.ByteSize() <= _CACHED_BYTES_MAX:
        _verify_link(untrusted.SerializeToString(deterministic=True))
    else:
        _verify_credential(untrusted, depth=depth)


@lru_cache(maxsize=_CHAINS_CACHED_MAX)
def _verify_link(untrusted: bytes) -> None:
    _verify_credential(decode(Credential, untrusted), depth=1)


def is_device_authorization(credential: Credential, identity_key: PublicKey, device_key: PublicKey) -> bool:
    """Whether the credential, if it verifies, says that the device speaks for the identity."""
    if from_key(credential.subject.id) != device_key or from_key(credential.issuer) != identity_key:
        return False
    try:
        assertion = assertion_of(credential)
    except DecodeError:
        return False
    return (
        isinstance(assertion, AuthorizedDevice)
        and from_key(assertion.identity_key) == identity_key
        and from_key(assertion.device_key) == device_key
    )


# --- Presentations ---------------------------------------------------------------------------------------------------


def create_presentation(
    signer: Signer,
    credentials: Sequence[Credential],
    *,
    signing_key: PublicKey,
    now_ms: int,
    chain: Credential | None = None,
    nonce: bytes | None = None,
) -> Presentation:
    """Show credentials to somebody, with a proof that their holder does so.

    Args:
        signer: Has the private half of `signing_key`.
        credentials: What to show.
        signing_key: The holder's key: the identity's, or a device's with its `chain`.
        now_ms: Unix time in milliseconds.
        chain: The AuthorizedDevice credential of `signing_key`.
        nonce: The other side's challenge.
    """
    proof = Proof(
        type=PROOF_TYPE, creation_date=to_timestamp(now_ms), signer=to_key(signing_key), nonce=nonce, value=b""
    )
    proof.value = signer.sign(signing_key, presentation_payload(credentials, proof))
    if chain is not None:
        proof.chain.credential.CopyFrom(chain)
    return Presentation(credentials=credentials, proofs=[proof])


def presentation_payload(credentials: Iterable[Credential], proof: Proof) -> bytes:
    """The bytes that a presentation's proof signs."""
    copy = Proof()
    copy.CopyFrom(proof)
    copy.ClearField("chain")
    copy.value = b""
    shown: list[Json] = [_without_empty_parents(credential) for credential in credentials]
    return canonical({"credentials": shown, "proof": to_canonical_json(copy)})


def verify_presentation(untrusted: Presentation, *, nonce: bytes | None = None) -> None:
    """Check every credential and every proof of a presentation.

    Args:
        untrusted: What somebody showed.
        nonce: Our challenge, which every proof must answer; None if there was none.

    Raises:
        ProofError: One does not verify, there is no proof, or a credential is not the holder's.
        DecodeError: One lacks a part, or has one that does not parse.
        LimitError: Larger than the limits allow.
    """
    if len(untrusted.credentials) > NOTARIZE_CREDENTIALS_MAX or len(untrusted.proofs) > CHAIN_DEPTH_MAX:
        raise LimitError("A presentation shows too much.", credentials_max=NOTARIZE_CREDENTIALS_MAX)
    if not untrusted.proofs:
        raise ProofError("A presentation lacks its proof.")
    for credential in untrusted.credentials:
        verify_credential(credential)
    for proof in untrusted.proofs:
        if proof.type != PROOF_TYPE:
            raise ProofError("A presentation has a proof of an unknown type.")
        if nonce is not None and proof.nonce != nonce:
            raise ProofError("A presentation answers another challenge.")
        signer = from_key(proof.signer)
        for credential in untrusted.credentials:
            if from_key(credential.issuer) == signer:
                continue
            if not proof.HasField("chain"):
                raise ProofError("A presentation of another's credential lacks its chain.")
            _verify_chain(proof.chain.credential, subject_of(credential), signer, depth=1)
        verify(signer, presentation_payload(untrusted.credentials, proof), proof.value)


def _without_empty_parents(credential: Credential) -> dict[str, Json]:
    """The credential as JSON; no parents and an empty list of them are the same, so that old signatures hold."""
    return _drop_parents(to_canonical_json(credential))


def _drop_parents(value: dict[str, Json]) -> dict[str, Json]:
    if not value.get("parentCredentialIds"):
        value.pop("parentCredentialIds", None)
    proof = value.get("proof")
    if isinstance(proof, dict):
        chain = proof.get("chain")
        if isinstance(chain, dict) and isinstance(chain.get("credential"), dict):
            _drop_parents(chain["credential"])
    return value
