"""`nas serve`."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from nas.terminal import next_step, quoted


def serve(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A run folder, or a folder of runs.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8390,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token; else NAS_TOKEN; else one is made where needed.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray's jobs server, such as http://head:8265: searches start there.", show_default="here"),
    ] = None,
) -> None:
    """Serve a page, and an API, to launch, watch and collect searches."""
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; make a run in it with: nas train … -o {quoted(root / 'NAME')}")
    token, made = token_of(token_file, host)
    if address is not None:
        from workers.ray_jobs import jobs_address

        address = jobs_address(address)
    import uvicorn

    from nas.service.app import create_app
    from nas.service.auth import LOOPBACK

    app = create_app(root, token, address, {*LOOPBACK, host})
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {root} at http://{shown}:{port} (API: http://{shown}:{port}/api)", file=sys.stderr)
    if made:
        print(f"token, made for this start: {token}", file=sys.stderr)
    next_step(f"open http://{shown}:{port} in a browser; Ctrl-C ends the service and no search")

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.hub.close()  # uvicorn waits for streams, which end when their readers do
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", ws_max_size=1 << 20, timeout_graceful_shutdown=5
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises once it has ended
        Server(config).run()


def token_of(token_file: Path | None, host: str) -> tuple[str | None, bool]:
    """The token, None where the host is this machine's own and none is given; and whether it was made just now.

    Raises ValueError for a token that is too short to be one.
    """
    from nas.service.auth import LOOPBACK

    if token_file is not None:
        token, where = token_file.read_text(encoding="utf-8").strip(), str(token_file)
    else:
        token, where = os.environ.get("NAS_TOKEN", "").strip(), "NAS_TOKEN"
        if not token:
            return (None, False) if host in LOOPBACK else (secrets.token_urlsafe(32), True)
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise ValueError(f"the token in {where} is no token: use 16 or more printable ASCII characters")
    return token, False
