"""Text forms of keys and ids: what is accepted, and what is refused with an error of ours."""

import pytest

from dxos.errors import CorruptionError, InvalidKeyError, ProofError
from dxos.keys import PublicKey, SigningKey, ed25519, ids, verify
from dxos.keys.base62 import decode, encode

KEY = PublicKey(b"\x04" + bytes(range(64)))


@pytest.mark.parametrize("text", ["zz", "0x0", "abc"])
def test_what_is_not_hex_is_no_key(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        PublicKey.from_hex(text)


def test_a_key_is_a_value() -> None:
    same = PublicKey.from_hex("0x" + KEY.hex)
    assert same == KEY
    assert hash(same) == hash(KEY)
    assert bytes(KEY) != KEY
    assert PublicKey(b"\1") < PublicKey(b"\2")
    assert len(KEY) == 65
    assert repr(KEY) == "<PublicKey 04000102>"


@pytest.mark.parametrize("text", ["", "Cabc", "B1", "Bß"])
def test_what_is_not_base32_is_no_key(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        PublicKey.from_multibase32(text)


def test_object_ids_sort_by_time() -> None:
    early, late = ids.make_object_id(1, b"\xff" * 10), ids.make_object_id(2, bytes(10))
    assert early < late
    assert ids.is_object_id(early)
    assert not ids.is_object_id(early.lower())
    assert not ids.is_object_id(early + "\n")


@pytest.mark.parametrize("text", ["", "é", "2g49J9RqXBZTqs3mUJUGmCrBvm7m", "1111"])
def test_what_is_no_document_id(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        ids.parse_document_id(text)


def test_a_document_id_that_is_no_uuid_is_refused() -> None:
    with pytest.raises(InvalidKeyError):
        ids.parse_document_id(ids.document_id(bytes(16)))


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\1", b"\xff" * 40])
def test_base62_keeps_leading_zeros(data: bytes) -> None:
    assert decode(encode(data)) == data


def test_base62_has_letters_and_digits_only() -> None:
    with pytest.raises(InvalidKeyError):
        decode("ab-c")


def test_a_signing_key_is_stored_and_read_without_showing_itself() -> None:
    key = SigningKey.generate()
    same = SigningKey.from_pkcs8(key.to_pkcs8())
    assert same.public_key == key.public_key
    signature = same.sign(b"hello")
    assert len(signature) == 64
    verify(key.public_key, b"hello", signature)
    assert key.to_pkcs8().hex() not in repr(key)
    with pytest.raises(CorruptionError):
        SigningKey.from_pkcs8(b"no key")


@pytest.mark.parametrize("key", [PublicKey(b""), PublicKey(bytes(65)), PublicKey(b"\x04" * 65), PublicKey(bytes(32))])
def test_a_signature_by_what_is_no_point_is_refused(key: PublicKey) -> None:
    with pytest.raises(ProofError):
        verify(key, b"", bytes(64))


def test_an_ed25519_secret_of_another_length_is_refused() -> None:
    with pytest.raises(ProofError):
        ed25519.sign(bytes(32), b"")
    with pytest.raises(ProofError):
        ed25519.verify(bytes(31), b"", bytes(64))
