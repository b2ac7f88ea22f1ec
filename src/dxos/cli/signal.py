"""`dx signal`: the server by which peers find each other."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from dxos.cli.command import command
from dxos.cli.output import line
from dxos.cli.session import SIGNAL_HOST, SIGNAL_PORT, Session, signal_url
from dxos.errors import TransportError

app: Final = typer.Typer(help="The server by which peers find each other.", no_args_is_help=True)


@command(app, "serve")
async def serve(
    session: Session,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = SIGNAL_HOST,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = SIGNAL_PORT,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print peers coming and going.")] = False,
) -> None:
    """Let peers find each other, until Ctrl-C. Nothing is stored; spaces' contents do not pass through it."""
    import anyio

    from dxos.mesh.signal_server import serve_signal

    output = session.output

    def print_event(event: str) -> None:
        output.result({"event": event}, line(lambda it: f"  {it['event']}"))

    async with anyio.create_task_group() as tasks:
        try:
            bound: int = await tasks.start(_serve, serve_signal, host, port, None if quiet else print_event)
        except OSError as error:
            raise TransportError(
                f"Cannot listen on {host} port {port}: {error.strerror or error}. "
                "Is a server running there already? Choose another port with --port.",
                host=host,
                port=port,
            ) from None
        url = signal_url("127.0.0.1" if host == "0.0.0.0" else host, bound)  # noqa: S104 - compared, not bound.
        output.result({"listening": url}, line(lambda it: f"Signalling server at {it['listening']} (Ctrl-C stops it)"))
        if not output.json:
            is_default = (bound, host) == (SIGNAL_PORT, SIGNAL_HOST)
            output.say("In another terminal:" if is_default else f"In another terminal:\n  export DX_SIGNAL={url}")
            output.say("  dx identity create --name Alice\n  dx space create Groceries\n  dx space share Groceries")


async def _serve(serve_signal: Any, host: str, port: int, on_event: Any, *, task_status: Any) -> None:
    await serve_signal(host, port, on_event=on_event, task_status=task_status)
