"""The identity of a profile: made once, found again, and never half."""

from pathlib import Path

import pytest

from dxos.errors import CorruptionError, IdentityExistsError, IdentityMissingError, KeyMissingError, StorageFullError
from dxos.spaces.identity import IdentityKeeper
from dxos.store.database import Database
from dxos.store.profile import Profile
from dxos.wire.proto.credentials_pb2 import DeviceProfileDocument, ProfileDocument

ALICE = ProfileDocument(display_name="alice")
LAPTOP = DeviceProfileDocument(label="laptop")


def keeper(profile: Profile) -> IdentityKeeper:
    return IdentityKeeper(profile, open_storage=profile.feeds.open_in, now_ms=lambda: 1_760_000_000_000)


def test_an_identity_is_found_again_with_its_profile_and_device(tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p") as profile:
        made = keeper(profile).create(ALICE, LAPTOP)
    with Profile.open(tmp_path / "p") as profile:
        found = keeper(profile)
        assert (found.required.identity_key, found.required.did) == (made.identity_key, made.did)
        assert found.required.profile.display_name == "alice"
        assert [one.profile.label for one in found.required.devices.devices] == ["laptop"]
        found.update_profile(ProfileDocument(display_name="alicia"))
    with Profile.open(tmp_path / "p") as profile:
        assert keeper(profile).required.profile.display_name == "alicia"


def test_there_is_one_identity_or_none() -> None:
    with Profile.open(None) as profile:
        identities = keeper(profile)
        with pytest.raises(IdentityMissingError):
            _ = identities.required
        identities.create(ALICE, LAPTOP)
        with pytest.raises(IdentityExistsError):
            identities.create(ALICE, LAPTOP)


@pytest.mark.parametrize("statement", ["COMMIT", "INSERT"])
def test_an_identity_that_could_not_be_stored_leaves_none_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    run = Database.run

    def refuse(database: Database, text: str, parameters: tuple[object, ...] = ()) -> int:
        if text.strip().startswith(statement):
            raise StorageFullError("the disk is full")
        return run(database, text, parameters)  # type: ignore[arg-type]

    with Profile.open(tmp_path / "p") as profile:
        identities = keeper(profile)
        with monkeypatch.context() as patched:
            patched.setattr(Database, "run", refuse)
            with pytest.raises(StorageFullError):
                identities.create(ALICE, LAPTOP)
        assert identities.current is None
    with Profile.open(tmp_path / "p") as profile:  # As after dying here: keys that nothing names.
        identities = keeper(profile)
        assert identities.current is None
        made = identities.create(ALICE, LAPTOP)
        assert made.chain.subject.id.data == bytes(made.device_key)


def test_a_damaged_record_or_feed_says_what_is_lost(tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p") as profile:
        keeper(profile).create(ALICE, LAPTOP)
        profile.metadata.put_identity(b'{"identity": 7}')
        with pytest.raises(CorruptionError, match="identity"):
            keeper(profile)
    with Profile.open(tmp_path / "q") as profile:
        keeper(profile).create(ALICE, LAPTOP)
        profile.database.run("UPDATE blocks SET bytes = zeroblob(length(bytes))")
        with pytest.raises(CorruptionError):
            keeper(profile)


def test_a_lost_key_is_named_when_it_is_needed() -> None:
    with Profile.open(None) as profile:
        identity = keeper(profile).create(ALICE, LAPTOP)
        profile.keyring.delete(identity.device_key)
        with pytest.raises(KeyMissingError):
            identity.prove(bytes(32), now_ms=1)
