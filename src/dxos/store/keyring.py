"""Private keys, one file each, in the layout of DXOS 0.8.3: `<public key in hex>` holds a KeyRecord.

No private key is ever part of a message, an error or a `repr`: errors name keys by the first digits of their public
half, and what failed to parse is not chained to them.
"""

from pathlib import Path
from typing import Final, final

from dxos.errors import CorruptionError, DecodeError, KeyMissingError
from dxos.keys import PublicKey, SigningKey
from dxos.limits import KEY_FILE_BYTES_MAX
from dxos.store.files import (
    make_private_directory,
    map_os_error,
    read_private_file,
    sync_directory,
    write_private_file,
)
from dxos.wire import decode, encode
from dxos.wire.proto.keyring_pb2 import KeyRecord

_POINT_DIGITS: Final = 130  # 65 bytes in hex.


@final
class Keyring:
    """The private keys of one profile; a `Signer` for all of them.

    Args:
        directory: Made with mode 0700 if it is missing.  None keeps the keys in memory.

    Raises:
        StorageAccessError: The directory is a link, another user's, or cannot be written.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._keys: dict[PublicKey, SigningKey] = {}  # Those used so far; all of them, if in memory.
        if directory is not None:
            make_private_directory(directory)

    def __repr__(self) -> str:
        return f"<Keyring {'memory' if self._directory is None else self._directory.name}>"

    def create(self) -> PublicKey:
        """Make a new key and keep it, durably; its public half."""
        return self.import_key(SigningKey.generate())

    def import_key(self, signing_key: SigningKey) -> PublicKey:
        """Keep a key, durably; its public half.

        Raises:
            StorageFullError: No room; the key was not kept.
        """
        key = signing_key.public_key
        if self._directory is not None:
            record = KeyRecord(public_key=bytes(key), private_key=signing_key.to_pkcs8())
            write_private_file(self._directory / key.hex, encode(record))
        self._keys[key] = signing_key
        return key

    def sign(self, key: PublicKey, message: bytes) -> bytes:
        """A 64-byte signature by the private half of `key`.

        Raises:
            KeyMissingError: The keyring has no such key.
            CorruptionError: Its file does not hold what it should.
        """
        return self._load(key).sign(message)

    def has(self, key: PublicKey) -> bool:
        """Whether the private half of `key` is here; its file is not checked."""
        return key in self._keys or (self._directory is not None and (self._directory / key.hex).is_file())

    def keys(self) -> list[PublicKey]:
        """The public halves of all keys, in the order of their bytes; the files are not checked."""
        if self._directory is None:
            return sorted(self._keys)
        try:
            names = [path.name for path in self._directory.iterdir()]
        except OSError as error:
            raise map_os_error(error, "read the keyring") from error
        return sorted(PublicKey.from_hex(name) for name in names if is_key_name(name))

    def delete(self, key: PublicKey) -> bool:
        """Forget a key; False if there was none."""
        known = self._keys.pop(key, None) is not None
        if self._directory is None:
            return known
        try:
            (self._directory / key.hex).unlink()
            sync_directory(self._directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise map_os_error(error, "delete a key") from error
        return True

    def close(self) -> None:
        """Forget the keys held in memory."""
        self._keys.clear()

    def _load(self, key: PublicKey) -> SigningKey:
        if (known := self._keys.get(key)) is not None:
            return known
        content = None
        if self._directory is not None:
            content = read_private_file(self._directory / key.hex, bytes_max=KEY_FILE_BYTES_MAX)
        if content is None:
            raise KeyMissingError("The keyring lacks a private key; restore it from a backup.", key=key.truncate())
        try:
            record = decode(KeyRecord, content)
        except DecodeError:
            raise _damaged(key) from None
        if not record.private_key:
            raise KeyMissingError("The keyring holds the public half of a key only.", key=key.truncate())
        try:
            signing_key = SigningKey.from_pkcs8(record.private_key)
        except CorruptionError:
            raise _damaged(key) from None
        if record.public_key != bytes(key) or signing_key.public_key != key:
            raise _damaged(key)
        self._keys[key] = signing_key
        return signing_key


def _damaged(key: PublicKey) -> CorruptionError:
    return CorruptionError("A file of the keyring is damaged; restore it from a backup.", key=key.truncate())


def is_key_name(name: str) -> bool:
    """Whether a file of that name holds a key."""
    return len(name) == _POINT_DIGITS and all(digit in "0123456789abcdef" for digit in name)
