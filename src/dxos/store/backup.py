"""A whole profile, keys included, in one file that a passphrase seals.

    file    magic | version | scrypt's cost | salt | nonce prefix | check of the key | checksum of all this | frames
    frame   up to 64 KiB, ChaCha20-Poly1305; nonce: prefix, number of the frame, whether it is the last
    inside  length and JSON {version, schema, createdMs, files: [[name, size], …]}, then the files one after the other

Invariants
1. Nothing of it is readable without the passphrase, and a file in which a bit was changed, or frames were moved, left
   out or cut off, is refused: each frame's tag covers the header, its place, and whether it is the last.
2. Nobody sees a profile that was restored in part: until all is written and checked, the folder is marked as being
   reset, and whoever opens it next empties it.
3. The passphrase is in no error, log or file.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import struct
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct

from dxos.errors import CorruptionError, InvalidValueError, PassphraseError, ProfileVersionError, StorageAccessError
from dxos.limits import (
    BACKUP_FILES_MAX,
    BACKUP_FRAME_BYTES,
    BACKUP_MANIFEST_BYTES_MAX,
    BACKUP_SCRYPT_LOG2,
    BACKUP_SCRYPT_LOG2_MAX,
    KEY_FILE_BYTES_MAX,
)
from dxos.store.database import map_sqlite_error
from dxos.store.files import create_private_file, make_private_directory, map_os_error, sync_directory, sync_file
from dxos.store.keyring import is_key_name
from dxos.store.profile import DATABASE_NAME, KEYRING_NAME, empty_profile
from dxos.store.schema import MIGRATIONS

Tell = Callable[[int, int], None]  # Bytes done, and of how many.

MAGIC: Final = b"DXBACKUP"
VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sHBBB16s7s16s")
_CHECKSUM_BYTES: Final = 8
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
_SALT_BYTES, _PREFIX_BYTES, _CHECK_BYTES = 16, 7, 16
_SCRYPT_R, _SCRYPT_P = 8, 1
_SEAL_LABEL: Final = b"dxos/backup/1/seal"
_CHECK_LABEL: Final = b"dxos/backup/1/check"
_DRAFT_SUFFIX: Final = ".draft"
_DATABASE_DRAFT: Final = f"{DATABASE_NAME}.copy"  # Beside the database, and removed with it.
_DAMAGED: Final = "This backup is damaged, or was changed; take another one."


def write_backup(
    profile: Path, target: Path, passphrase: str, tell: Tell, *, now_ms: int, cost_log2: int = BACKUP_SCRYPT_LOG2
) -> int:
    """Write a profile that may be in use to one sealed file; how many bytes it has.

    Blocks for the disk: for a worker thread. The database is copied as it is at one moment.

    Args:
        profile: Its folder.
        target: The file; a backup that is there is replaced once the new one is complete.
        passphrase: What it takes to restore it; not empty.
        tell: Told how many bytes are done, and of how many, in the thread that calls this.
        now_ms: Unix time in milliseconds.
        cost_log2: How much work one guess of the passphrase is, as a power of two.

    Raises:
        UsageError: An empty passphrase, or another file is in the place.
        StorageError: It cannot be written; an earlier backup is still there.
    """
    draft, copy = target.with_name(target.name + _DRAFT_SUFFIX), profile / _DATABASE_DRAFT
    try:
        if target.exists() and not is_backup(target):
            raise StorageAccessError(f"{target.name} is there already and is no backup; choose another name.")
        header, seal = _new_seal(_secret(passphrase), cost_log2)
        try:
            _copy_database(profile / DATABASE_NAME, copy)
            # Keys after the database: a key that its rows name was made before they were written.
            files = [(DATABASE_NAME, copy), *_key_files(profile / KEYRING_NAME)]
            create_private_file(draft)
            with draft.open("wb") as out:
                out.write(header)
                _write_files(_Sealer(out, seal), files, tell, now_ms=now_ms)
                out.flush()
                sync_file(out.fileno())
                size = out.tell()
            draft.replace(target)
            sync_directory(target.parent)
        finally:
            copy.unlink(missing_ok=True)
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise map_os_error(error, f"write {target.name}") from error
    return size


def sealed_writer(profile: Path | None, passphrase: str | None) -> Callable[[Path], object] | None:
    """What writes a sealed backup of a profile that is about to be migrated; None without a folder or a passphrase."""
    if profile is None or passphrase is None:
        return None

    # Not a partial: its repr would tell the passphrase.
    def write(target: Path) -> None:
        write_backup(profile, target, passphrase, lambda _done, _total: None, now_ms=time.time_ns() // 1_000_000)

    return write


def restore_backup(source: Path, profile: Path, passphrase: str, tell: Tell) -> None:
    """Make a profile of a backup, in a folder that has none. Blocks for the disk.

    Args:
        source: The file.
        profile: The folder, made if it is not there.
        passphrase: The one that it was written with.
        tell: Told how many bytes are done, and of how many, in the thread that calls this.

    Raises:
        InvalidValueError: The file is no backup.
        PassphraseError: The passphrase is another one.
        CorruptionError: The backup is damaged.
        ProfileVersionError: It was written by a newer version.
        UsageError: The folder has a profile already.
        StorageError: It cannot be written.
    """
    try:
        with source.open("rb") as file:
            header, seal = _read_header(file, _secret(passphrase))
            opener = _Opener(file, seal, header)
            manifest = _read_manifest(opener)
            with empty_profile(profile):
                make_private_directory(profile / KEYRING_NAME)
                done = 0
                for name, size in manifest.files:
                    with _new_file(profile / name) as out:
                        for piece in opener.take(size):
                            out.write(piece)
                            done += len(piece)
                            tell(done, manifest.total)
                opener.finish()
                sync_directory(profile / KEYRING_NAME)
    except FileNotFoundError as error:
        raise StorageAccessError(f"There is no file {source}.") from error
    except OSError as error:
        raise map_os_error(error, f"restore {source.name}") from error


def is_backup(path: Path) -> bool:
    """Whether a file begins as a backup does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


# --- The seal -----------------------------------------------------------------------------------------------------


@final
class _Seal:
    """The key of one file, and what its tags cover besides the content."""

    __slots__ = ("_cipher", "_header", "_number", "_prefix")

    def __init__(self, key: bytes, prefix: bytes, header: bytes) -> None:
        self._cipher, self._prefix, self._header = ChaCha20Poly1305(key), prefix, header
        self._number = 0

    def _nonce(self, is_last: bool) -> bytes:
        nonce = self._prefix + struct.pack(">IB", self._number, is_last)
        self._number += 1
        return nonce

    def close(self, frame: bytes, *, is_last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(is_last), frame, self._header)

    def open(self, frame: bytes, *, is_last: bool) -> bytes:
        try:
            return self._cipher.decrypt(self._nonce(is_last), frame, self._header)
        except InvalidTag:
            raise CorruptionError(_DAMAGED) from None


def _secret(passphrase: str) -> bytes:
    if not passphrase:
        raise InvalidValueError("A passphrase has at least one character.")
    # The same characters, however they were typed.
    return unicodedata.normalize("NFC", passphrase).encode()


def _derive(secret: bytes, salt: bytes, cost_log2: int, r: int, p: int) -> tuple[bytes, bytes]:
    """The key, and what tells a wrong passphrase from a damaged file."""
    root = Scrypt(salt=salt, length=_KEY_BYTES, n=1 << cost_log2, r=r, p=p).derive(secret)
    seal = HKDFExpand(SHA256(), _KEY_BYTES, _SEAL_LABEL).derive(root)
    return seal, HKDFExpand(SHA256(), _CHECK_BYTES, _CHECK_LABEL).derive(root)


def _new_seal(secret: bytes, cost_log2: int) -> tuple[bytes, _Seal]:
    salt, prefix = os.urandom(_SALT_BYTES), os.urandom(_PREFIX_BYTES)
    key, check = _derive(secret, salt, cost_log2, _SCRYPT_R, _SCRYPT_P)
    packed = _HEADER.pack(MAGIC, VERSION, cost_log2, _SCRYPT_R, _SCRYPT_P, salt, prefix, check)
    header = packed + hashlib.sha256(packed).digest()[:_CHECKSUM_BYTES]
    return header, _Seal(key, prefix, header)


def _read_header(file: BinaryIO, secret: bytes) -> tuple[bytes, _Seal]:
    header = file.read(_HEADER.size + _CHECKSUM_BYTES)
    if not header.startswith(MAGIC):
        raise InvalidValueError("This file is no backup of dxos.")
    packed = header[: _HEADER.size]
    if len(header) < _HEADER.size + _CHECKSUM_BYTES:
        raise CorruptionError(_DAMAGED)
    _, version, cost_log2, r, p, salt, prefix, check = _HEADER.unpack(packed)
    if hashlib.sha256(packed).digest()[:_CHECKSUM_BYTES] != header[_HEADER.size :]:
        raise CorruptionError(_DAMAGED)
    if version != VERSION:
        raise ProfileVersionError("This backup was written by a newer version of dxos; upgrade this one.")
    if not 1 <= cost_log2 <= BACKUP_SCRYPT_LOG2_MAX or (r, p) != (_SCRYPT_R, _SCRYPT_P):
        raise CorruptionError(_DAMAGED)
    key, expected = _derive(secret, salt, cost_log2, r, p)
    if not hmac.compare_digest(check, expected):
        raise PassphraseError("This is not the passphrase of the backup.")
    return header, _Seal(key, prefix, header)


@final
class _Sealer:
    """Takes bytes, writes frames."""

    def __init__(self, out: BinaryIO, seal: _Seal) -> None:
        self._out, self._seal, self._rest = out, seal, bytearray()

    def write(self, data: bytes) -> None:
        self._rest += data
        # The last frame is kept back, because it is marked as such.
        while len(self._rest) > BACKUP_FRAME_BYTES:
            frame = bytes(self._rest[:BACKUP_FRAME_BYTES])
            del self._rest[:BACKUP_FRAME_BYTES]
            self._out.write(self._seal.close(frame, is_last=False))

    def finish(self) -> None:
        self._out.write(self._seal.close(bytes(self._rest), is_last=True))


@final
class _Opener:
    """Reads frames, gives bytes."""

    def __init__(self, file: BinaryIO, seal: _Seal, header: bytes) -> None:
        self._file, self._seal = file, seal
        self._sealed = self._next()
        self._rest = b""
        self._ended = False

    def _next(self) -> bytes:
        return self._file.read(BACKUP_FRAME_BYTES + _TAG_BYTES)

    def _fill(self) -> None:
        if self._ended:
            raise CorruptionError(_DAMAGED)
        sealed, self._sealed = self._sealed, self._next()
        self._ended = not self._sealed
        self._rest = self._seal.open(sealed, is_last=self._ended)

    def take(self, size: int) -> Iterator[bytes]:
        """The next bytes, in pieces."""
        while size:
            if not self._rest:
                self._fill()
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        return b"".join(self.take(size))

    def finish(self) -> None:
        """Check that nothing is left, and that nothing was cut off."""
        if self._rest or not self._ended:
            raise CorruptionError(_DAMAGED)


# --- What is inside -----------------------------------------------------------------------------------------------


@final
class _Manifest(Struct, frozen=True):
    files: tuple[tuple[str, int], ...]  # Names below the profile's folder, and sizes.

    @property
    def total(self) -> int:
        return sum(size for _, size in self.files)


def _write_files(sealer: _Sealer, files: list[tuple[str, Path]], tell: Tell, *, now_ms: int) -> None:
    sizes = [(name, path.stat().st_size) for name, path in files]
    said = {"version": VERSION, "schema": len(MIGRATIONS), "createdMs": now_ms, "files": sizes}
    manifest = json.dumps(said).encode()
    sealer.write(struct.pack(">I", len(manifest)) + manifest)
    total, done = sum(size for _, size in sizes), 0
    for (_, path), (name, size) in zip(files, sizes, strict=True):
        left = size
        with path.open("rb") as file:
            while left and (piece := file.read(min(BACKUP_FRAME_BYTES, left))):
                sealer.write(piece)
                left -= len(piece)
                done += len(piece)
                tell(done, total)
        if left:
            raise CorruptionError(f"{Path(name).name[:16]} became shorter while it was read.")
    sealer.finish()


def _read_manifest(opener: _Opener) -> _Manifest:
    (length,) = struct.unpack(">I", opener.read(4))
    if length > BACKUP_MANIFEST_BYTES_MAX:
        raise CorruptionError(_DAMAGED)
    # From here on the content is what somebody with the passphrase has written.
    try:
        document: Any = json.loads(opener.read(length))
    except ValueError:
        raise CorruptionError(_DAMAGED) from None
    match document:
        case {"version": 1, "schema": int(schema), "files": list(files)}:
            if schema > len(MIGRATIONS):
                raise ProfileVersionError(
                    "This backup was written by a newer version of dxos; upgrade this one.",
                    profile_version=schema,
                    own_version=len(MIGRATIONS),
                )
        case {"version": int(version)} if version > VERSION:
            raise ProfileVersionError("This backup was written by a newer version of dxos; upgrade this one.")
        case _:
            raise CorruptionError(_DAMAGED)
    manifest = _Manifest(tuple(map(_file_entry, files)))
    names = [name for name, _ in manifest.files]
    if names.count(DATABASE_NAME) != 1 or len(set(names)) != len(names) or len(names) > BACKUP_FILES_MAX:
        raise CorruptionError(_DAMAGED)
    return manifest


def _file_entry(entry: Any) -> tuple[str, int]:
    match entry:
        case [str(name), int(size)] if size >= 0:
            folder, _, key = name.rpartition("/")
            is_key = folder == KEYRING_NAME and is_key_name(key) and size <= KEY_FILE_BYTES_MAX
            if is_key or name == DATABASE_NAME:
                return name, size
    raise CorruptionError(_DAMAGED)


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be in use, as it is at one moment; writers go on meanwhile."""
    target.unlink(missing_ok=True)
    create_private_file(target)
    try:
        with (
            contextlib.closing(sqlite3.connect(os.fspath(source), isolation_level=None)) as reader,
            contextlib.closing(sqlite3.connect(os.fspath(target))) as copy,
        ):
            reader.backup(copy)
    except sqlite3.Error as error:
        raise map_sqlite_error(error) from error


def _key_files(keyring: Path) -> list[tuple[str, Path]]:
    names = sorted(path.name for path in keyring.iterdir() if is_key_name(path.name))
    return [(f"{KEYRING_NAME}/{name}", keyring / name) for name in names]


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that only its owner may read; on the disk when the block ends."""
    create_private_file(path)
    with path.open("r+b") as file:
        yield file
        file.flush()
        sync_file(file.fileno())
