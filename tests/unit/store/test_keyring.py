import json
from pathlib import Path

import pytest

from dxos.errors import CorruptionError, KeyMissingError, StorageAccessError, StorageError
from dxos.keys import PublicKey, SigningKey, verify
from dxos.store.keyring import Keyring

VECTORS = Path(__file__).parents[2] / "vectors" / "keys_keyring_files.json"
FILES: dict[str, str] = json.loads(VECTORS.read_text())["keyringFiles"]


@pytest.mark.parametrize("folder", ["disk", None])
def test_a_created_key_signs_what_its_public_half_verifies(tmp_path: Path, folder: str | None) -> None:
    keyring = Keyring(tmp_path / folder if folder else None)
    key = keyring.create()
    verify(key, b"message", keyring.sign(key, b"message"))
    assert keyring.has(key)
    assert keyring.keys() == [key]
    assert keyring.delete(key)
    assert not keyring.delete(key)
    assert not keyring.has(key)
    with pytest.raises(KeyMissingError):
        keyring.sign(key, b"message")


def test_keys_outlive_the_process_and_are_the_owners_alone(tmp_path: Path) -> None:
    key = Keyring(tmp_path / "keyring").create()
    verify(key, b"message", Keyring(tmp_path / "keyring").sign(key, b"message"))
    assert (tmp_path / "keyring").stat().st_mode & 0o777 == 0o700
    assert [(path.name, path.stat().st_mode & 0o777) for path in (tmp_path / "keyring").iterdir()] == [(key.hex, 0o600)]


def test_files_of_the_javascript_client_are_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    for name, digits in FILES.items():
        (theirs / Path(name).name).write_bytes(bytes.fromhex(digits))
    keyring, copy = Keyring(theirs), Keyring(ours)
    keys = keyring.keys()
    assert len(keys) == len(FILES)
    for key in keys:
        verify(key, b"message", keyring.sign(key, b"message"))
        content = (theirs / key.hex).read_bytes()
        # Bytes 69 on: field 1 of 67 bytes, then the tag and the two-byte length of field 2.
        assert copy.import_key(SigningKey.from_pkcs8(content[70:])) == key
        assert (ours / key.hex).read_bytes() == content


def test_any_altered_file_is_corrupt_or_missing_and_says_no_secret(tmp_path: Path) -> None:
    name, content = next(iter(FILES.items()))
    secret, key = bytes.fromhex(content), PublicKey.from_hex(Path(name).name)
    keyring = Keyring(tmp_path / "keyring")
    path = tmp_path / "keyring" / key.hex
    broken = [secret[:length] for length in range(0, len(secret), 7)] + [secret * 30, b""]
    broken += [secret[:i] + bytes([secret[i] ^ 1]) + secret[i + 1 :] for i in range(0, 150)]
    for altered in broken:
        path.write_bytes(altered)
        with pytest.raises(StorageError) as caught:
            keyring.sign(key, b"message")
        assert isinstance(caught.value, CorruptionError | KeyMissingError)
        assert caught.value.__cause__ is None
        assert secret[107:139].hex() not in f"{caught.value!r} {caught.value.detail}"
    assert repr(keyring) == "<Keyring keyring>"


def test_a_file_under_another_keys_name_is_corrupt(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keyring")
    one, other = keyring.create(), keyring.create()
    keyring.close()
    (tmp_path / "keyring" / one.hex).replace(tmp_path / "keyring" / other.hex)
    with pytest.raises(CorruptionError):
        keyring.sign(other, b"message")


def test_a_linked_keyring_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "keyring").symlink_to(tmp_path / "real")
    with pytest.raises(StorageAccessError, match="link"):
        Keyring(tmp_path / "keyring")
