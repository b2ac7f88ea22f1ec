from pathlib import Path
from typing import Any

import pytest

from dxos.client.config import Config, profile_folder
from dxos.errors import ConfigError

SIGNAL = "ws://127.0.0.1:5001/.well-known/dx/signal"


def test_nothing_given_is_version_one_in_memory() -> None:
    config = Config()
    assert config.values == {"version": 1}
    assert (config.persistent, config.data_root, config.signal_servers) == (False, None, ())


def test_the_first_settings_win_and_mappings_are_merged() -> None:
    config = Config(
        {"runtime": {"client": {"storage": {"persistent": False}}}},
        {"runtime": {"client": {"storage": {"persistent": True, "dataRoot": "/x"}}, "app": {"org": "us"}}},
    )
    assert config.get("runtime.client.storage") == {"persistent": False, "dataRoot": "/x"}
    assert config.get("runtime.app.org") == "us"


def test_settings_are_immutable() -> None:
    given = {"runtime": {"services": {"signaling": [{"server": SIGNAL}]}}}
    config = Config(given)
    given["runtime"]["services"]["signaling"].clear()
    config.values["runtime"].clear()
    config.get("runtime.services.signaling").clear()
    assert config.signal_servers == (SIGNAL,)


def test_a_missing_setting_has_a_default_or_raises() -> None:
    config = Config({"runtime": {"client": {"storage": {"persistent": False}}}})
    assert config.get("runtime.client.storage.dataRoot", "here") == "here"
    assert config.get_or_throw("runtime.client.storage.persistent") is False
    with pytest.raises(ConfigError, match="Config option not present: runtime"):
        config.get_or_throw("runtime.nothing")


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"version": 2}, "version: 2"),
        ({"version": "1"}, "version"),
        ({"runtime": 3}, "runtime: should be a mapping"),
        ({"runtime": {"client": {"storage": {"persistent": "yes"}}}}, "runtime.client.storage.persistent"),
        ({"runtime": {"client": {"storage": {"dataRoot": ""}}}}, "runtime.client.storage.dataRoot"),
        ({"runtime": {"services": {"signaling": [{}]}}}, r"runtime.services.signaling.0.server"),
        ({"runtime": {"services": {"signaling": [{"server": "http://x"}]}}}, "WebSocket URL"),
        ({"runtime": {"services": {"ice": [{"urls": 1, "credential": "geheim"}]}}}, "runtime.services.ice.0.urls"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(values: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place) as caught:
        Config(values)
    assert "geheim" not in str(caught.value)


def test_settings_of_the_original_that_are_not_read_here_are_kept() -> None:
    values = {"runtime": {"client": {"edgeFeatures": {"signaling": True}}, "system": {"debug": True}}}
    assert Config(values).values == {**values, "version": 1}


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"runtime": {"client": {"storage": {"persistent": true}}}}')
    (tmp_path / "a.toml").write_text("[runtime.client.storage]\npersistent = true\n")
    assert Config.load(tmp_path / "a.json") == Config.load(tmp_path / "a.toml")
    assert Config.load(tmp_path / "a.toml").persistent


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.json", "[]"), ("a.toml", "="), ("a.yml", "a: 1")])
def test_a_file_that_does_not_parse_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        Config.load(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path / "none.toml")


def test_the_environment_names_profile_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "work.toml").write_text(f'[[runtime.services.signaling]]\nserver = "{SIGNAL}"\n')
    environ = {"DX_CONFIG": str(tmp_path), "DX_DATA": str(tmp_path / "data"), "DX_PROFILE": "work"}
    config = Config.from_env(environ)
    assert config.data_root == tmp_path / "data" / "profile" / "work"
    assert config.signal_servers == (SIGNAL,)
    other = Config.from_env(environ, profile="home")
    assert other.data_root == tmp_path / "data" / "profile" / "home"
    assert other.signal_servers == ()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Config.from_env({"DX_CONFIG": str(tmp_path / "none.json"), "DX_DATA": str(tmp_path)})


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "a" * 65, "a b"])
def test_a_profile_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        profile_folder(name, data=tmp_path)


def test_a_persistent_profile_without_a_folder_gets_the_platforms() -> None:
    config = Config({"runtime": {"client": {"storage": {"persistent": True}}}})
    assert config.data_root is not None
    assert config.data_root.parts[-2:] == ("profile", "default")


def test_the_repr_shows_no_values() -> None:
    config = Config({"runtime": {"services": {"ice": [{"urls": "turn:x", "credential": "geheim"}]}}})
    assert "geheim" not in repr(config)


def test_the_passphrase_of_backups_comes_from_the_settings_or_the_environment_and_is_never_shown(
    tmp_path: Path,
) -> None:
    environ = {"DX_DATA": str(tmp_path), "DX_BACKUP_PASSPHRASE": "from the environment"}
    config = Config.from_env({**environ, "DX_CONFIG": str(tmp_path)})
    assert config.backup_passphrase == "from the environment"
    assert "environment" not in repr(config)
    file = tmp_path / "settings.json"
    file.write_text('{"runtime": {"client": {"storage": {"backupPassphrase": "from the file"}}}}')
    assert Config.from_env({**environ, "DX_CONFIG": str(file)}).backup_passphrase == "from the file"
    assert Config().backup_passphrase is None
    for wrong in ("", 123456789, ["s3cret"]):
        with pytest.raises(ConfigError, match="backupPassphrase") as caught:
            Config({"runtime": {"client": {"storage": {"backupPassphrase": wrong}}}})
        assert "123456789" not in str(caught.value)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7_200), ("1d", 86_400), ("30", 30)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float, tmp_path: Path) -> None:
    assert Config({"runtime": {"client": {"agentIdle": text}}}).agent_idle_s == seconds
    assert Config.from_env({"DX_AGENT_IDLE": text, "DX_CONFIG": str(tmp_path)}).agent_idle_s == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "1 s", "10 minutes", "1e9", "0s", "0.0", 5])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.client\.agentIdle"):
        Config({"runtime": {"client": {"agentIdle": text}}})
