"""`Config`: the settings of a client, in the original's names (camelCase), checked before anything is opened.

    version: 1
    runtime.client.storage.persistent   keep data on disk; false: in memory
    runtime.client.storage.dataRoot     folder of the profile
    runtime.client.storage.backupPassphrase   seals the backup that is made before a migration
    runtime.client.services             "worker": shared by processes; "agent": that, kept ready by an agent; "local": a
                                        host in this process
    runtime.client.agentIdle            how long an agent stays when nobody else uses the profile, such as "5m"
    runtime.client.log.filter, prefix   what is logged
    runtime.services.signaling          [{"server": "ws://host:port/.well-known/dx/signal"}, …]
    runtime.services.ice                [{"urls", "username", "credential"}, …]

Other names are kept as they are, because the original's schema is larger than what this package reads.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, final

from dxos.errors import ConfigError
from dxos.limits import AGENT_IDLE_S

if TYPE_CHECKING:
    from platformdirs.api import PlatformDirsABC

VERSION: Final = 1
DEFAULT_PROFILE: Final = "default"
_PROFILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SUFFIXES: Final = (".json", ".toml")


@final
@dataclass(frozen=True, slots=True)
class _Value:
    """What a setting may be."""

    expected: str
    holds: Callable[[Any], bool]
    required: bool = False


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


_FLAG: Final = _Value("true or false", lambda value: isinstance(value, bool))
_TEXT: Final = _Value("a text", _is_text)
_TEXTS: Final = _Value("a text or a list of texts", _is_texts)
_FILLED: Final = _Value("a text that is not empty", lambda value: _is_text(value) and value != "")
_SOCKET_URL: Final = _Value(
    "a WebSocket URL such as ws://127.0.0.1:5001/.well-known/dx/signal",
    lambda value: _is_text(value) and re.fullmatch(r"wss?://[^\s/]+(/\S*)?", value) is not None,
    required=True,
)
_DURATION: Final = _Value('a duration such as "90s", "5m" or "2h"', lambda value: _seconds(value) is not None)
# The settings that are read here: a mapping by its names, a list by what each of its members is.
_SETTINGS: Final = {
    "version": _Value("a whole number", lambda value: type(value) is int, required=True),
    "runtime": {
        "client": {
            "storage": {"persistent": _FLAG, "dataRoot": _FILLED, "backupPassphrase": _FILLED},
            "log": {"filter": _TEXTS, "prefix": _TEXT},
            "lazySpaceOpen": _FLAG,
            "services": _Value('"local", "worker" or "agent"', ("local", "worker", "agent").__contains__),
            "agentIdle": _DURATION,
        },
        "services": {
            "signaling": [{"server": _SOCKET_URL}],
            "ice": [{"urls": replace(_TEXTS, required=True), "username": _TEXT, "credential": _TEXT}],
        },
    },
}


@final
class Config:
    """Settings; immutable.

    Args:
        values: Nested mappings with camelCase names.
        more: Further settings, for what those before do not say. Mappings are merged, lists are taken as a whole.

    Raises:
        ConfigError: A wrong type or version; the message names the setting.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None, *more: Mapping[str, Any]) -> None:
        merged: dict[str, Any] = {}
        for one in (values or {}, *more, {"version": VERSION}):
            if not isinstance(one, Mapping):
                raise ConfigError(f"Settings are a mapping, not {type(one).__name__}.")
            _merge(merged, one)
        problems = list(_problems("", merged, _SETTINGS))
        if problems:
            raise ConfigError(f"Wrong settings: {'; '.join(problems)}.")
        if merged["version"] != VERSION:
            raise ConfigError(f"Invalid config version: {merged['version']}; this package reads version {VERSION}.")
        self._values = merged

    @property
    def values(self) -> dict[str, Any]:
        """A copy of all settings."""
        return copy.deepcopy(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """A setting by its dotted name, such as `runtime.client.storage.persistent`."""
        found: Any = self._values
        for name in key.split("."):
            if not isinstance(found, Mapping) or name not in found:
                return default
            found = found[name]
        return copy.deepcopy(found)

    def get_or_throw(self, key: str) -> Any:
        """A setting by its dotted name; unlike in JavaScript, `False`, 0 and "" are settings.

        Raises:
            ConfigError: There is no such setting.
        """
        found = self.get(key, _MISSING)
        if found is _MISSING:
            raise ConfigError(f"Config option not present: {key}")
        return found

    @property
    def persistent(self) -> bool:
        """Whether data is kept on disk."""
        return bool(self.get("runtime.client.storage.persistent", False))

    @property
    def data_root(self) -> Path | None:
        """The profile's folder; None if nothing is kept on disk."""
        if not self.persistent:
            return None
        root = self.get("runtime.client.storage.dataRoot")
        return Path(root).expanduser() if root else profile_folder()

    @property
    def backup_passphrase(self) -> str | None:
        """What seals the backup that is made before a migration; None: it is as open as the profile itself."""
        found = self.get("runtime.client.storage.backupPassphrase")
        return found if isinstance(found, str) else None

    @property
    def services(self) -> Literal["local", "worker", "agent"] | None:
        """Whether processes share the profile, and an agent keeps it ready; None if nobody chose."""
        found = self.get("runtime.client.services")
        return found if found in ("local", "worker", "agent") else None

    @property
    def agent_idle_s(self) -> float:
        """How long an agent stays when nobody else uses the profile."""
        found = _seconds(self.get("runtime.client.agentIdle"))
        return AGENT_IDLE_S if found is None else found

    @property
    def signal_servers(self) -> tuple[str, ...]:
        """The URLs of the signalling servers."""
        return tuple(one["server"] for one in self.get("runtime.services.signaling") or ())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *more: Mapping[str, Any]) -> Config:
        """Read a file of settings, JSON or TOML by its suffix.

        Raises:
            ConfigError: The file cannot be read or does not parse, or has a wrong setting.
        """
        return cls(_read(Path(path)), *more)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, profile: str | None = None) -> Config:
        """The settings of a profile: its file, where there is one, and a persistent folder of its own.

        Args:
            environ: DX_PROFILE names the profile; DX_CONFIG is a file of settings, or a folder that may hold
                `profile/<name>.toml` or `.json`; DX_DATA is the folder of all data; DX_BACKUP_PASSPHRASE
                seals backups made before migrations; DX_AGENT_IDLE is how long an agent stays. None: the
                process's.
            profile: Comes before DX_PROFILE.

        Raises:
            ConfigError: An unusable profile name, or a file that cannot be used.
        """
        environ = os.environ if environ is None else environ
        name = profile or environ.get("DX_PROFILE") or DEFAULT_PROFILE
        folder = profile_folder(name, data=environ.get("DX_DATA"))
        storage: dict[str, Any] = {"persistent": True, "dataRoot": str(folder)}
        if environ.get("DX_BACKUP_PASSPHRASE"):
            storage["backupPassphrase"] = environ["DX_BACKUP_PASSPHRASE"]
        client: dict[str, Any] = {"storage": storage}
        if environ.get("DX_AGENT_IDLE"):
            client["agentIdle"] = environ["DX_AGENT_IDLE"]
        defaults = {"runtime": {"client": client}}
        chosen = environ.get("DX_CONFIG")
        place = Path(chosen).expanduser() if chosen else _platform().user_config_path
        if not place.is_dir():
            return cls.load(place, defaults) if chosen else cls(defaults)
        for suffix in _SUFFIXES:
            path = place / "profile" / f"{name}{suffix}"
            if path.is_file():
                return cls.load(path, defaults)
        return cls(defaults)

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Config) else NotImplemented

    def __hash__(self) -> int:
        return hash(json.dumps(self._values, sort_keys=True, default=str))

    def __repr__(self) -> str:
        # Not the values: some of them are credentials of servers.
        return f"<Config {self.data_root or 'in memory'}, {len(self.signal_servers)} signal servers>"


_MISSING: Final = object()


def profile_folder(profile: str = DEFAULT_PROFILE, *, data: str | os.PathLike[str] | None = None) -> Path:
    """Where a profile's data lives: `<data>/profile/<name>`.

    Args:
        profile: Letters, digits, `.`, `_` and `-`; at most 64.
        data: The folder of all data; None: the platform's, on Linux `~/.local/share/dx`.

    Raises:
        ConfigError: The name could leave the folder, or is too long.
    """
    if not _PROFILE.fullmatch(profile):
        raise ConfigError(f"A profile's name has letters, digits, '.', '_' and '-' only, not {profile!r:.80}.")
    root = Path(data).expanduser() if data else _platform().user_data_path
    return root / "profile" / profile


def _platform() -> PlatformDirsABC:
    """Where this platform keeps the files of applications; a client that is told its folder does not ask."""
    from platformdirs import PlatformDirs

    return PlatformDirs("dx", appauthor=False)


def _seconds(value: object) -> float | None:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", value) if isinstance(value, str) else None
    # Not 0: an agent that ends before anybody sees it is no agent.
    return None if found is None else float(found[1]) * _UNITS_S[found[2]] or None


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        present = into.get(name)
        if name not in into:
            into[name] = _plain(value)
        elif isinstance(present, dict) and isinstance(value, Mapping):
            _merge(present, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"{path}: a file of settings ends in .toml or .json.")
    # Only who reads such a file waits for the parser.
    import tomllib

    parse: Callable[[str], Any] = tomllib.loads if path.suffix == ".toml" else json.loads
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{path}: does not parse: {error}.") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: holds no settings, but a {type(values).__name__}.")
    return values


def _problems(place: str, value: Any, wanted: Any) -> Iterator[str]:
    """What is wrong, by the names of settings and without their values: one may be a credential."""
    if isinstance(wanted, _Value):
        if not wanted.holds(value):
            yield f"{place}: should be {wanted.expected}"
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{place}: should be a list"
            return
        for index, one in enumerate(value):
            yield from _problems(f"{place}.{index}", one, wanted[0])
    elif not isinstance(value, dict):
        yield f"{place}: should be a mapping"
    else:
        for name, inner in wanted.items():
            below = f"{place}.{name}" if place else name
            if value.get(name) is not None:
                yield from _problems(below, value[name], inner)
            elif isinstance(inner, _Value) and inner.required:
                yield f"{below}: is missing"
