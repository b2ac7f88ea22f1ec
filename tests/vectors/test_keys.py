"""Keys and the ids derived from them, against what 0.8.3 makes of the same keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from dxos.errors import ProofError
from dxos.keys import PublicKey, ed25519, ids, verify

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "keys_keys.json").read_text(encoding="utf-8"))
P256, ED25519 = VECTORS["p256"], VECTORS["ed25519"]
SPACE = PublicKey.from_hex(P256["spaceKey"])


def test_the_texts_of_a_key() -> None:
    assert SPACE.truncate() == P256["truncate"]
    assert SPACE.to_multibase32() == P256["multibase32"]
    assert PublicKey.from_multibase32(P256["multibase32"]) == SPACE
    assert SPACE.hex == P256["spaceKey"]


def test_the_ids_of_keys() -> None:
    assert ids.space_id(SPACE) == P256["spaceId"]
    assert ids.space_id(PublicKey.from_hex(VECTORS["bootstrap"]["spaceKey"])) == VECTORS["bootstrap"]["spaceId"]
    assert ids.identity_did(PublicKey.from_hex(P256["identityKey"])) == P256["identityDid"]
    assert ids.is_object_id(P256["objectIdSample"])


def test_topics_and_feed_keys() -> None:
    assert ids.swarm_topic(SPACE).hex == P256["discovery"]["swarmTopic"]
    rule = P256["hypercoreKeyRule"]
    assert ids.hypercore_key(PublicKey.from_hex(rule["feedKey"])).hex() == rule["hypercoreKey"]


def test_document_ids() -> None:
    text = VECTORS["document_id"].removeprefix("automerge:")
    assert ids.document_id(ids.parse_document_id(text)) == text


def test_a_p256_signature_verifies_and_no_altered_one() -> None:
    vector = P256["signature"]
    key, message = PublicKey.from_hex(vector["key"]), vector["messageUtf8"].encode()
    signature = bytes.fromhex(vector["signature"])
    verify(key, message, signature)
    for position in range(0, len(signature), 7):
        altered = bytearray(signature)
        altered[position] ^= 1
        with pytest.raises(ProofError):
            verify(key, message, bytes(altered))
    with pytest.raises(ProofError):
        verify(key, message + b"!", signature)
    with pytest.raises(ProofError):
        verify(SPACE, message, signature)


def test_an_ed25519_signature_is_the_same() -> None:
    secret, message = bytes.fromhex(ED25519["secretKey"]), ED25519["message"].encode()
    assert ed25519.public_key(bytes.fromhex(ED25519["seed"])).hex() == ED25519["publicKey"]
    assert ed25519.sign(secret, message).hex() == ED25519["sig"]
    ed25519.verify(bytes.fromhex(ED25519["publicKey"]), message, bytes.fromhex(ED25519["sig"]))
    with pytest.raises(ProofError):
        ed25519.verify(bytes.fromhex(ED25519["publicKey"]), message + b"!", bytes.fromhex(ED25519["sig"]))
