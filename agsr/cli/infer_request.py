"""From the options of ``agsr infer`` to inputs, output size, format and the jobs left to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.infer_report import tell_error
from agsr.cli.param_types import FileLocation
from agsr.errors import ImageError
from agsr.image.ops.output_size import OutputSize
from agsr.store.address import Address, Location
from agsr.system.text import printable
from agsr.video.formats import WRITABLE

if TYPE_CHECKING:
    from agsr.cli.output.infer import Tally
    from agsr.engines.batch.found import Skipped
    from agsr.engines.batch.manifest import Manifest
    from agsr.engines.batch.plan import Job
    from agsr.engines.batch.shard import Shard
    from agsr.engines.cluster.request import ClusterRequest
    from agsr.store.listing import Listings


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of runs in several processes and on several machines."""
    for option in (
        click.option(
            "--shard",
            metavar="INDEX/COUNT",
            help="Upscale only one of COUNT equal parts, counted from 0; other machines do the "
            "others. auto/COUNT takes the index of a Kubernetes, AWS Batch or SLURM job.",
        ),
        click.option(
            "--devices",
            metavar="DEVICE,…",
            help="Upscale files in several processes: cuda:0,cuda:1 for one per GPU, cpu:N for N "
            "that share the CPUs.",
        ),
        click.option(
            "--ray",
            is_flag=False,
            flag_value="auto",
            metavar="[ADDRESS]",
            help="Upscale files on a Ray cluster: HOST:PORT, local, or that of this machine.",
        ),
        click.option(
            "--workers",
            metavar="N|MIN..MAX",
            help="Workers on the cluster, of -j CPUs each; more than MIN while there is work. "
            "[default: as many as fit]",
        ),
        click.option(
            "--manifest",
            type=FileLocation,
            metavar="FOLDER",
            help="Write a row per file there, as JSON lines. [default with --ray: agsr-manifest in "
            "the folder of the results]",
        ),
    ):
        command = option(command)
    return command


def cluster_request(ray: str | None, workers: str | None) -> ClusterRequest | None:
    """Return what --ray and --workers ask for.

    Raises:
        click.UsageError: --workers without --ray.
        RequestError: One of them has another form.
    """
    if ray is None:
        if workers is not None:
            raise click.UsageError("--workers has no effect without --ray")
        return None
    from agsr.engines.cluster.request import ClusterRequest

    return ClusterRequest.parse(ray, workers)


def open_manifest(
    folder: Location | None, jobs: Sequence[Job], output: Location | None, on_cluster: bool
) -> Manifest | None:
    """Return the manifest of a run; None if there is none."""
    from agsr.engines.batch.manifest import FOLDER, Manifest

    if folder is not None:
        return Manifest(folder)
    if not on_cluster or not jobs:
        return None
    parents = [job.target.parent for job in jobs]
    beside = min(parents, key=lambda parent: len(str(parent)))
    is_root = output is not None and all(output in (p, *p.parents) for p in parents)
    return Manifest((output if is_root and output is not None else beside) / FOLDER)


def image_ending(ext: str | None) -> str | None:
    """Return the file extension of image results; None if each result has its input's."""
    if ext == "same":
        return None
    return f".{ext}" if ext and f".{ext}" not in WRITABLE else ".png"


def check_inputs(inputs: tuple[Location, ...]) -> tuple[Location, ...]:
    """Return the inputs.

    Raises:
        click.UsageError: There are none, or stdin is a terminal.
    """
    from agsr.engines.batch.plan import STREAM

    if not inputs:
        raise click.UsageError("Missing argument 'IN...': files, folders with -r, or '-' for stdin")
    if STREAM in inputs and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("'-' reads an image from stdin, which is the terminal; redirect it")
    return inputs


def output_size(
    scale: float | None, max_size: int | None, fit: tuple[int, int] | None, network: int
) -> OutputSize:
    """Return the size that --scale, --max-size or --to ask for, of a network of this scale.

    Raises:
        click.BadParameter: The scale is not a number, or larger than two passes of the network.
    """
    box = (max_size, max_size) if max_size else fit
    try:
        return OutputSize(scale=scale, box=box, network=network)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scale") from None


def count_left_out(path: Location, source: Location, tally: Tally, verbose: bool) -> None:
    """Count an input that is a result of ``source``; with ``verbose``, name it on stderr."""
    tally.left_out += 1
    if verbose:
        click.echo(printable(f"{path}: skipped as a result of {source}"), err=True)


def count_unread(path: Location, tally: Tally, verbose: bool) -> None:
    """Count a picture of a kind that can't be read; with ``verbose``, name it on stderr."""
    tally.unread += 1
    if verbose:
        click.echo(printable(f"{path}: skipped, {path.suffix} is not supported"), err=True)


def count_skipped(file: Skipped, tally: Tally, verbose: bool) -> None:
    """Count a hidden file or another name of an input; print it if it was named, or verbose."""
    if file.linked:
        tally.links += 1
    else:
        tally.hidden += 1
    if verbose or file.named:
        click.echo(printable(f"skipped: {file.path}: {file.reason}"), err=True)


def of_shard(jobs: Sequence[Job], shard: Shard, tally: Tally) -> list[Job]:
    """Return the jobs of one shard; the others are counted.

    Every shard reports what is missing: the machine may lack a folder that the others have.
    """
    from agsr.store.locations import may_exist

    own = [job for job in jobs if shard.contains(job.name) or not may_exist(job.source)]
    tally.elsewhere = len(jobs) - len(own)
    return own


def report_early(
    jobs: Sequence[Job],
    tally: Tally,
    quiet: bool,
    manifest: Callable[[Sequence[Job]], Manifest | None],
) -> Mapping[Location, str]:
    """Report what is wrong with jobs before the network is opened; ends if no job is left.

    Args:
        jobs: Planned without the network's scale, so their targets have other names.
        tally: Counts errors.
        quiet: Print no summary.
        manifest: Opens the manifest of jobs; called if no job is left.

    Returns:
        The problems that are reported, by source; their rows are not in a manifest yet.

    Raises:
        click.UsageError: As for `to_do`.
        SystemExit: Every job has a problem.
    """
    _reject_request(jobs)
    problems = {job.source: problem for job in jobs if (problem := _early_problem(job))}
    for problem in problems.values():
        tell_error(problem, tally)
    if jobs and all(job.source in problems for job in jobs):
        tally.manifest = manifest(jobs)
        for job in jobs:
            _add_problem(job, problems[job.source], tally, has_target=False)
        tally.flush()
        if len(jobs) > 1 and not quiet:
            click.echo(tally.summary("upscaled"), err=True)
        raise SystemExit(1)
    return problems


def _add_problem(job: Job, problem: str, tally: Tally, *, has_target: bool = True) -> None:
    """Add the row of a job that can't be done, if there is a manifest."""
    if tally.manifest is not None:
        tally.manifest.add_problem(job, problem, has_target=has_target)


def _early_problem(job: Job) -> str:
    """Return what is known to be wrong with a job before anything is read; empty if nothing is."""
    from agsr.engines.batch.plan import STREAM
    from agsr.store.locations import may_exist

    if job.problem is not None:
        return job.problem
    is_there = job.source == STREAM or may_exist(job.source)
    return "" if is_there else f"{job.source}: no such file"


def to_do(
    jobs: Sequence[Job],
    skip_existing: bool,
    tally: Tally,
    listings: Listings,
    reported: Mapping[Location, str] = MappingProxyType({}),
) -> list[Job]:
    """Return the jobs to do; the others are counted and reported.

    Those of ``reported``, which maps sources to problems, only become rows of the manifest.

    Raises:
        ImageError: The results on a server can't be listed.
        click.UsageError: An image would go to the terminal, or nothing was asked for that could be
            done, whatever the files hold.
    """
    from agsr.engines.batch.plan import STREAM

    _reject_request(jobs)
    todo, remote = [], _there_remotely(jobs, listings) if skip_existing else set()
    for job in jobs:
        if job.source in reported:
            _add_problem(job, reported[job.source], tally)
        elif job.problem is not None:
            tell_error(job.problem, tally)
            _add_problem(job, job.problem, tally)
        elif skip_existing and job.target != STREAM and _is_there(job.target, remote):
            tally.existing += 1
            if tally.manifest is not None:
                tally.manifest.add_existing(job)
            warn_of_doubts([job], "and is not replaced; --overwrite replaces it")
        else:
            todo.append(job)
    return todo


def _reject_request(jobs: Sequence[Job]) -> None:
    from agsr.engines.batch.plan import STREAM

    if jobs and all(job.is_request for job in jobs):
        raise click.UsageError("\n".join(printable(str(job.problem)) for job in jobs))
    written = [job for job in jobs if job.problem is None and job.target == STREAM]
    if written and sys.stdout is not None and sys.stdout.isatty():
        raise click.UsageError("an image would go to the terminal; name a file or redirect stdout")


def warn_of_doubts(jobs: Sequence[Job], consequence: str = "and is replaced") -> None:
    """Warn of existing results that may be those of other inputs."""
    for job in jobs:
        if job.doubt is not None:
            text = f"warning: {job.doubt}, {consequence}; --suffix or -o results in both"
            click.echo(printable(text), err=True)


def _there_remotely(jobs: Sequence[Job], listings: Listings) -> set[Address]:
    targets = [job.target for job in jobs if isinstance(job.target, Address)]
    try:
        return listings.existing(targets)
    except OSError as error:
        raise ImageError(f"{error.filename}: can't be listed: {error.strerror}") from None


def _is_there(path: Location, remote: set[Address]) -> bool:
    """Return True if a result exists. Results appear complete, so an empty file doesn't count."""
    if isinstance(path, Address):
        return path in remote
    try:
        return path.stat().st_size > 0
    except OSError:  # of a name that is too long, too
        return False
