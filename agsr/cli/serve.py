"""``agsr serve``: a web page and an HTTP API on this computer, or for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agsr.cli.constraints import RUNNING, check_options
from agsr.cli.param_types import FilePath
from agsr.cli.params import Sectioned, resolved, running_options
from agsr.serve.settings import LOCAL, ServeSettings

SECTIONS = {
    "Address": ("host", "port", "root_path", "allow_host", "allow_origin", "token", "no_ui"),
    "Limits": (
        "max_pixels",
        "max_result_pixels",
        "max_bytes",
        "queue",
        "workers",
        "loaded",
        "keep_minutes",
        "max_disk",
        "spool",
        "grace",
    ),
    "Messages": ("verbose",),
}
"""Options as the help groups them; those of the network follow."""


@click.command(
    cls=Sectioned, sections=SECTIONS, rest="Network", short_help="Serve a web page and an HTTP API."
)
@click.option("--host", default=ServeSettings.host, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=ServeSettings.port,
    show_default=True,
    help="0 for any.",
)
@click.option(
    "--token",
    envvar="AGSR_TOKEN",
    show_envvar=True,
    help="Require this from clients: 'Authorization: Bearer TOKEN'. The page asks for it.",
)
@click.option("--no-ui", is_flag=True, help="Serve the API only.")
@click.option("--root-path", default="", help="Path under which a reverse proxy serves this.")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Name in the Host header; repeatable."
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Other web pages that may call the API (CORS), like https://example.org; repeatable.",
)
@click.option(
    "--offer",
    multiple=True,
    callback=resolved,
    metavar="WEIGHTS",
    help="Weights that requests may name beside -w; repeatable. [default: all shipped ones]",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=ServeSettings.max_pixels,
    show_default=True,
    help="Reject larger inputs before they are decoded.",
)
@click.option(
    "--max-result-pixels",
    type=click.IntRange(1),
    default=ServeSettings.max_result_pixels,
    show_default=True,
    help="Reject larger results before they are computed.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=ServeSettings.max_bytes,
    show_default=True,
    help="Reject longer uploads.",
)
@click.option(
    "--queue",
    type=click.IntRange(0),
    default=ServeSettings.queue,
    show_default=True,
    help="Files that may wait; others are answered with 429.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=ServeSettings.workers,
    show_default=True,
    help="Files decoded and encoded at the same time; they take turns at the network.",
)
@click.option(
    "--loaded",
    type=click.IntRange(1),
    default=ServeSettings.loaded,
    show_default=True,
    help="Networks that stay in memory.",
)
@click.option(
    "--keep-minutes",
    type=click.FloatRange(0, min_open=True),
    default=ServeSettings.keep_minutes,
    show_default=True,
    help="Time after which results of jobs are removed.",
)
@click.option(
    "--max-disk",
    type=click.IntRange(1),
    default=ServeSettings.max_disk,
    show_default=True,
    help="Bytes of all uploads and results.",
)
@click.option(
    "--spool", type=FilePath, help="Folder for uploads and results. [default: temporary files]"
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=ServeSettings.grace,
    show_default=True,
    help="Seconds that running work may take after Ctrl-C or SIGTERM.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every request to stderr.")
@running_options
@click.pass_context
def serve(
    context: click.Context,
    /,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    offer: tuple[str, ...],
    no_ui: bool,
    spool: Path | None,
    verbose: bool,
    weights: str,
    **options: Any,
) -> None:
    """Serve a web page to upscale pictures on, and an HTTP API for programs.

    Only this computer can reach it, unless --host says otherwise. Nothing is fetched for clients,
    and uploads and results are removed.

    \b
    agsr serve                                 then open http://127.0.0.1:8188/
    curl --data-binary @cat.jpg 'http://127.0.0.1:8188/v1/upscale?scale=2' -o large.png
    AGSR_TOKEN=secret agsr serve --host 0.0.0.0 --allow-host pictures.example.org
    """
    from agsr.system.optional_import import require

    check_options(context, RUNNING)
    for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, extra="serve", purpose="agsr serve")
    from agsr.serve.server import serve as run

    running = {param.name: options.pop(param.name) for param in _running(context, options)}
    if spool is not None:
        options["spool"] = spool
    try:
        settings = ServeSettings(
            weights=weights,
            offered=offer,
            running=running,
            allow_hosts=allow_host,
            allow_origins=allow_origin,
            ui=not no_ui,
            **options,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _check_weights(settings)
    if settings.token is None and settings.host not in LOCAL:
        click.echo("warning: anyone who reaches this address may use it; see --token", err=True)
    run(settings, lambda address: click.echo(address), verbose)


def _running(context: click.Context, options: dict[str, Any]) -> list[click.Parameter]:
    """The options of `running_options`, but the weights."""
    placed = {name for names in SECTIONS.values() for name in names} | {"offer"}
    return [p for p in context.command.params if p.name in options and p.name not in placed]


def _check_weights(settings: Any) -> None:
    """Reject weights and options that no request could use.

    Raises:
        RequestError: An option is wrong, or weights don't exist.
    """
    from agsr.engines.open import check_request

    names = ("steps", "provider", "device", "precision", "threads", "hints", "url")
    for weights in (settings.weights, *settings.offered):
        running = settings.running_for(weights)
        options = {name: running[name] for name in names if name in running}
        check_request(running["backend"], weights, **options)
