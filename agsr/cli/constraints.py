"""Options that contradict one another, or would have no effect: rejected instead of ignored.

A command has a table of `Rule` here, and calls `check_options` before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from agsr.engines.batch.plan import Job


def _always(_: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """Options that must not be given together if a condition holds."""

    options: tuple[str, ...]
    """Names of the command's parameters."""
    reason: str
    """Follows the options' names in the message."""
    when: Callable[[Mapping[str, Any]], bool] = _always
    """The condition, on all parameters of the command."""


def is_folder(output: str) -> bool:
    """Whether an output's name says that it is a folder."""
    return output.endswith(("/", os.sep))


def _is_file(options: Mapping[str, Any]) -> bool:
    """Whether -o names the result itself."""
    from agsr.image.encode import FORMATS
    from agsr.video.formats import WRITABLE

    output = options["output"]
    if is_folder(output) or Path(output).is_dir():
        return False
    return bool(output == "-" or Path(output).suffix.lower() in {**FORMATS, **WRITABLE})


def _is_of_other_format(options: Mapping[str, Any]) -> bool:
    """Whether -o names the result itself, by the ending of another format than --ext."""
    from agsr.image.encode import FORMATS
    from agsr.video.formats import WRITABLE

    if not _is_file(options) or options["output"] == "-":
        return False
    forms = {**FORMATS, **WRITABLE}
    return forms[Path(options["output"]).suffix.lower()] != forms.get("." + options["ext"])


def _without(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda options: not options[name]


def _scores_nothing(options: Mapping[str, Any]) -> bool:
    return not options["sets"] and not options["as_table1"]


_EXCLUSIVE = "exclude one another"
_NOT_TIMED = "has no effect: --rounds 0 times nothing"
_TABLE1 = "contradict one another: the table has its own sets and times nothing"


def _no_foreign(options: Mapping[str, Any]) -> bool:
    """Whether no network of a benchmark can be another project's."""
    from agsr.engines.weights_file import Kind, kind_of

    return not options["models"] and not any(
        kind_of(name) is Kind.FOREIGN_ONNX for name in options["weights"]
    )


def _halo_of_nothing(options: Mapping[str, Any]) -> bool:
    data = options.get("separate_alpha") or options.get("normal_map")
    return options["tile"] == 0 and options["border"] is None and not data


def _has_stream(options: Mapping[str, Any]) -> bool:
    """Whether stdin is an input, or stdout the output."""
    inputs = (*options["inputs"], *options["more"])
    return options["output"] == "-" or "-" in map(str, inputs)


RUNNING = (
    Rule(("border",), "has no effect: --halo 0 reads nothing around", _without("halo")),
    Rule(("tile", "halo"), "contradict one another: --tile 0 cuts nothing", _halo_of_nothing),
)
"""Of every command that runs a network."""

INFER = (
    Rule(("scale", "max_size"), _EXCLUSIVE),
    Rule(("scale", "fit"), _EXCLUSIVE),
    Rule(("max_size", "fit"), _EXCLUSIVE),
    Rule(("quiet", "verbose"), _EXCLUSIVE),
    Rule(("fp32", "half"), _EXCLUSIVE),
    Rule(("precision", "fp32"), "both set the precision; remove one of them"),
    Rule(("precision", "half"), "both set the precision; remove one of them"),
    Rule(("output", "ext"), "name two formats; remove --ext", _is_of_other_format),
    Rule(("output", "suffix"), "both name the result; remove --suffix", _is_file),
    Rule(("normal_map", "quality"), "contradict one another: lossy vectors are of any length"),
    Rule(
        ("normal_map", "separate_alpha"),
        "overlap: --normal-map implies --separate-alpha; remove it",
    ),
    Rule(("devices", "device"), "contradict one another; remove --device"),
    Rule(("devices", "url"), "contradict one another: the server computes; remove --devices"),
    Rule(
        ("devices", "threads"),
        "contradict one another: workers share the CPUs evenly; remove --threads",
    ),
    Rule(("ray", "devices"), "contradict one another; remove one of them"),
    Rule(("ray",), "is for files, not for stdin and stdout; remove it", _has_stream),
    Rule(("devices",), "is for files, not for stdin and stdout; remove it", _has_stream),
    *RUNNING,
)
"""Of ``agsr infer``."""

BENCH = (
    Rule(("hints",), "describe another project's ONNX file, and there is none", _no_foreign),
    Rule(("fetch",), "gets a --set, and there is none", _scores_nothing),
    Rule(("lr",), "is for a --set, and there is none", _scores_nothing),
    Rule(("data",), "is where a --set lies, and there is none", _scores_nothing),
    Rule(("lpips",), "scores a --set, and there is none", _scores_nothing),
    Rule(("as_table1", "sets"), _TABLE1),
    Rule(("as_table1", "sizes"), _TABLE1),
    Rule(("as_table1", "rounds"), _TABLE1),
    Rule(("as_table1", "batch"), _TABLE1),
    Rule(("as_table1", "boundary"), _TABLE1),
    Rule(("sizes",), _NOT_TIMED, _without("rounds")),
    Rule(("batch",), _NOT_TIMED, _without("rounds")),
    Rule(("boundary",), _NOT_TIMED, _without("rounds")),
)
"""Of ``agsr bench``."""


def check_options(context: click.Context, rules: Sequence[Rule]) -> None:
    """Refuse what contradicts itself.

    Raises:
        click.UsageError: A rule is broken; the message is of the first.
    """
    for rule in rules:
        if all(is_given(context, name) for name in rule.options) and rule.when(context.params):
            flags = " and ".join(_flag(context, name) for name in rule.options)
            raise click.UsageError(f"{flags} {rule.reason}")


def check_kinds(context: click.Context, jobs: Sequence[Job]) -> None:
    """Reject options for a kind of result, images or videos, that this run does not produce.

    Raises:
        click.UsageError: There is no video file and an encoder's option or format of one, no image
            and one for images, or a lossy format for normal maps.
    """
    from agsr.engines.batch.plan import STREAM
    from agsr.image.encode import FORMATS
    from agsr.video.formats import WRITABLE

    forms = [FORMATS[job.extension.lower()] for job in jobs if job.extension.lower() in FORMATS]
    lossy = next((form.name for form in forms if form.lossy), None)
    if lossy is not None and context.params["normal_map"]:
        raise click.UsageError(f"--normal-map needs a lossless format; {lossy} is none, use png")
    if any(job.problem is not None for job in jobs):  # what it would be may not be known
        return
    video = any(job.is_video and job.target != STREAM for job in jobs)
    image = any(not job.is_video for job in jobs)  # or stdin to stdout, which may be one
    wants_video = f".{context.params['ext']}" in WRITABLE
    for name, of_video in (
        *((name, True) for name in ("codec", "crf", "preset")),
        *((name, False) for name in ("quality", "separate_alpha", "normal_map")),
        ("ext", wants_video),
    ):
        if is_given(context, name) and not (video if of_video else image):
            kind = "a video file" if of_video else "an image"
            raise click.UsageError(f"{_flag(context, name)} has no effect: no result is {kind}")


def is_given(context: click.Context, name: str) -> bool:
    """Whether the user gave an option, be it with its default's value."""
    source = context.get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def _flag(context: click.Context, name: str) -> str:
    """The long form of an option."""
    option = next(found for found in context.command.params if found.name == name)
    return next((flag for flag in option.opts if flag.startswith("--")), option.opts[0])
