"""``agsr doctor``: versions, what runs here, and timings for ``--backend auto``."""

from __future__ import annotations

import click

from agsr.system.signals import interruptible


@click.command(short_help="Show what runs here, and what would add the rest.")
@click.option(
    "--measure",
    is_flag=True,
    help="Time every backend that is here, half a minute or so, and let --backend auto follow it.",
)
def doctor(measure: bool) -> None:
    """Show versions, what really runs here, and the commands that add what is missing.

    With --measure, the backends take turns on one size, each in its own process; the times are
    cached for this processor, these versions and these weights.
    """
    if measure:
        return _measure()
    from agsr.bench.doctor import backends, caches, choice, machine, packages
    from agsr.cli.output.tables import build_progress, show_checks

    show_checks("machine", machine())
    show_checks("packages", packages())
    show_checks("cache", caches())
    show_checks("backends", backends(build_progress))
    show_checks("choice", choice(build_progress))
    return None


def _measure() -> None:
    from agsr.bench.measure import measure, timings
    from agsr.cli.output.bench import bench_progress, show_measured
    from agsr.engines.timings import timings_file
    from agsr.system.atomic_file import check_writable

    check_writable(timings_file())
    with interruptible() as ending, bench_progress() as notify:
        result = measure(notify)
    show_measured(result)
    if not result.complete:
        raise SystemExit(ending.status)
    click.echo(f"saved to {timings(result).save()}: --backend auto uses it from now on")
