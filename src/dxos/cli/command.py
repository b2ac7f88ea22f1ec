"""How an `async def` becomes a command: the options all commands share, the event loop, and how a command ends.

Exit codes: 0 done; 1 refused or failed, one sentence on stderr says why; 2 wrong arguments; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, final

import typer

from dxos.aio import unwrap_group
from dxos.cli.output import Output
from dxos.cli.session import Session, Surroundings
from dxos.errors import DxosError
from dxos.store.files import check_descriptors, map_os_error

INTERRUPTED: Final = 130
_LOOP_DESCRIPTORS: Final = 3
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: one document, or one a line for streams.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help='Profile to use; else DX_PROFILE, else "default".')
]
SignalOption = Annotated[
    str | None, typer.Option("--signal", metavar="URL", help="Signalling server; else DX_SIGNAL, else the settings.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show logs, and tracebacks of errors.")]
NoAgentOption = Annotated[bool, typer.Option("--no-agent", help="Start no agent; likewise with DX_NO_AGENT=1.")]
_COMMON: Final = {
    "json": JsonOption,
    "profile": ProfileOption,
    "signal": SignalOption,
    "no_agent": NoAgentOption,
    "debug": DebugOption,
}
_TERMINATING: Final = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)
_SILENCE: Final = logging.NullHandler()
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Common:
    """What was said before the command's name; what is said after it comes first."""

    json: bool = False
    profile: str | None = None
    signal: str | None = None
    no_agent: bool = False
    debug: bool = False
    surroundings: Surroundings = field(default_factory=Surroundings)


def take_common(
    context: typer.Context,
    json: JsonOption = False,
    profile: ProfileOption = None,
    signal: SignalOption = None,
    no_agent: NoAgentOption = False,
    debug: DebugOption = False,
) -> None:
    """DXOS: local-first, peer-to-peer spaces.

    Data lives in one folder per profile and is durable when a command ends. A command leaves an agent behind, which
    keeps the profile open and online for the next one, and ends when it has not been needed for some minutes.
    """
    surroundings = context.obj if isinstance(context.obj, Surroundings) else Surroundings()
    context.obj = Common(json, profile, signal, no_agent, debug, surroundings)


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Register an `async def` whose first parameter is the Session; the others are its arguments and options."""

    def register(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_default(key))
            for key, kind in _COMMON.items()
        ]

        def run_command(context: typer.Context, **arguments: Any) -> None:
            before = context.obj if isinstance(context.obj, Common) else Common()
            given = {key: arguments.pop(key) or getattr(before, key) for key in _COMMON}
            session = Session(
                Output(json=given["json"]),
                given["profile"],
                given["signal"],
                no_agent=given["no_agent"],
                surroundings=before.surroundings,
            )
            code = run(session, functools.partial(function, session, **arguments), debug=given["debug"])
            if code:
                raise typer.Exit(code)

        run_command.__doc__ = function.__doc__
        run_command.__name__ = function.__name__
        keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        run_command.__signature__ = inspect.Signature([context, *keyword_only, *shared])  # type: ignore[attr-defined]
        run_command.__annotations__ = {one.name: one.annotation for one in (context, *own, *shared)}
        app.command(name)(run_command)
        return function

    return register


def run(session: Session, body: Callable[[], Awaitable[None]], *, debug: bool = False) -> int:
    """Run a command to its end.

    Returns:
        The exit code; what went wrong has been said.
    """
    _configure_logging(debug=debug)
    try:
        import anyio

        check_descriptors(_LOOP_DESCRIPTORS, "run this command")  # An event loop that is half there complains.
        with _terminable(), unwrap_group():
            anyio.run(_call, body)
    except DxosError as error:
        return _refuse(session, error, debug=debug)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            session.output.say("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - The top: whatever comes here is a bug, and is told as one.
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # Of an import, for example.
            return _refuse(session, map_os_error(error, "run this command"), debug=debug)
        if debug:
            _log.exception("a bug")
        session.output.error("internal", f"A bug in dx: {type(error).__name__}: {error} (--debug shows where)")
        return 1
    return 0


def _refuse(session: Session, error: DxosError, *, debug: bool) -> int:
    if debug:
        _log.error("the command failed", exc_info=error)
    session.output.error(error.code, sentence(error))
    return 1


def sentence(error: DxosError) -> str:
    """What an error says, as a sentence."""
    text = str(error).strip() or type(error).__name__
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?)" or " dx " in f" {text} " else f"{text}."


async def _call(body: Callable[[], Awaitable[None]]) -> None:
    await body()


class _terminable:
    """Within, a request to terminate, and the end of the terminal, is an interruption: all is closed in order."""

    def __enter__(self) -> None:
        self._before = {
            one: signal.signal(one, lambda *_: signal.raise_signal(signal.SIGINT))
            for one in _TERMINATING
            if signal.getsignal(one) is not signal.SIG_IGN  # As with `nohup`.
        }

    def __exit__(self, *_: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)


def _default(key: str) -> bool | None:
    return False if key in ("json", "no_agent", "debug") else None


def _configure_logging(*, debug: bool) -> None:
    root = logging.getLogger("dxos")
    if debug:
        logging.basicConfig(stream=sys.stderr, format="%(relativeCreated)6d ms %(name)s: %(message)s")
        root.setLevel(logging.DEBUG)
    else:
        # What a person must know is said by the commands.
        root.addHandler(_SILENCE)
