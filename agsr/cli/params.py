"""What the commands share: options, and how paths and errors are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from agsr.cli.commands import STDOUT
from agsr.cli.param_types import (
    SizeOrWord,
)
from agsr.contract import DEFAULT_STEPS, MAX_STEPS, PRECISIONS
from agsr.engines.places import BACKENDS, RUNTIMES
from agsr.pretrained import DEFAULT_WEIGHTS, resolve_weights
from agsr.store.address import Location
from agsr.system.control_groups import usable_cpus
from agsr.system.text import counted, printable, without_controls
from agsr.tiling import DEFAULT_HALO

Command = Callable[..., Any]


def check_ending(path: Path, ending: str) -> None:
    """Refuse a result's name that may be another file's, like a photo's.

    Raises:
        click.UsageError: It does not end so.
    """
    if path.suffix.lower() != ending:
        raise click.UsageError(f"-o {path} does not end in {ending}")


class Sectioned(click.Command):
    """A command whose help shows its options in sections.

    Args:
        sections: Titles, with the parameters below them.
        rest: Title of all other options.
        attributes: As for `click.Command`.
    """

    def __init__(
        self, *, sections: Mapping[str, Sequence[str]], rest: str, **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self._sections = sections
        self._rest = rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section under its title."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        lines = {option.name: option.get_help_record(ctx) for option in options}
        placed = {name for names in self._sections.values() for name in names}
        rest = [name for name in lines if name not in placed]
        for title, names in (*self._sections.items(), (self._rest, rest)):
            with formatter.section(title):
                formatter.write_dl([line for name in names if (line := lines[name]) is not None])


def echo_path(path: Location) -> None:
    """Print a result's path on one line of stdout.

    Programs get the original bytes, with control characters escaped; on a terminal, everything
    unprintable is escaped.

    Raises:
        OSError: stdout can't be written.
    """
    try:
        if sys.stdout is not None and sys.stdout.isatty():
            click.echo(printable(str(path)))
        else:
            click.echo(os.fsencode(without_controls(str(path))))
    except OSError as error:
        message = f"{error.strerror}; {path} is complete"
        raise OSError(error.errno, message, STDOUT) from None


def echo_error(message: str) -> None:
    """What went wrong with a file, on stderr, as one line that a terminal can show."""
    click.echo(f"Error: {printable(message)}", err=True)


def threads_at_most(_: click.Context, __: click.Parameter, threads: int | None) -> int | None:
    """Warn if more threads are requested than processors are usable; backends start no more."""
    if threads is not None and (cpus := usable_cpus()) < threads:
        what = counted(cpus, "thread")
        click.echo(f"warning: -j {threads}: {what} will run, one per usable processor", err=True)
    return threads


def _shared(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def resolved(context: click.Context, __: click.Parameter, weights: Any) -> Any:
    """Return one or several weights, with names in the user's folder of models as paths."""
    if isinstance(weights, str):
        return resolve_weights(_blended(context, weights))
    return type(weights)(map(resolve_weights, weights))


BLEND_END = "gan"
"""The other end of a blend for which none is named."""

_BLEND_KEY = "agsr.blend"


def _blended(context: click.Context, weights: str) -> str:
    """Return the weights that --weights and --blend name together.

    Raises:
        click.UsageError: --blend names both ends, and --weights is given, too.
    """
    text = context.meta.get(_BLEND_KEY)
    if text is None:
        return weights
    if ":" not in text:
        return f"{weights}:{BLEND_END}:{text}"
    if context.get_parameter_source("weights") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--blend {text} names both ends; remove --weights")
    return str(text)


def _note_blend(context: click.Context, _: click.Parameter, text: str | None) -> None:
    """Combine --blend with --weights, whichever click handles first."""
    if text is None:
        return
    context.meta[_BLEND_KEY] = text
    if "weights" in context.params:
        context.params["weights"] = resolve_weights(_blended(context, context.params["weights"]))


weights_option = click.option(
    "-w",
    "--weights",
    default=DEFAULT_WEIGHTS,
    show_default=True,
    callback=resolved,
    help="psnr: most faithful, for clean inputs. gan: crisp, with plausible texture. photo: for "
    "compressed, noisy or soft inputs. Or a file, also of another project: .onnx, .safetensors, "
    ".pth.",
)
blend_option = click.option(
    "--blend",
    metavar="[FIRST:SECOND:]SHARE",
    expose_value=False,
    callback=_note_blend,
    help=f"Mix weights: 0 is --weights, 1 is {BLEND_END}, 0.3 lies between; or both by name, like "
    "a.safetensors:b.safetensors:0.3, the second trained on from the first.",
)
steps_option = click.option(
    "-s",
    "--steps",
    type=click.IntRange(1, MAX_STEPS),
    help=f"Time steps of the attention loop: more is slower and better. [default: {DEFAULT_STEPS}]",
)
lr_option = click.option(
    "--lr",
    type=click.Choice(["given", "bicubic"]),
    default="given",
    show_default=True,
    help="LR images: those in the set, if it has some, or always made of its HR images.",
)
hints_option = click.option(
    "--hints",
    default="",
    metavar="NAME=VALUE,…",
    help="What running another project's ONNX file does not show, like order=bgr,input_peak=255.",
)
running_options = _shared(
    weights_option,
    steps_option,
    hints_option,
    click.option(
        "-b",
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="What runs the network; auto takes the best that works here, see 'agsr doctor'.",
    ),
    click.option(
        "--provider",
        type=click.Choice(RUNTIMES["ort"].devices),
        help="ONNX Runtime's execution provider. [default: cpu; --backend auto chooses]",
    ),
    click.option(
        "--device",
        help="Device of torch, or GPU of trt, ort and openvino: cuda:1, dml:0, coreml, migraphx:0, "
        "gpu. [default: cpu; trt: cuda:0]",
    ),
    click.option(
        "--url",
        metavar="URL",
        help="Triton server of --backend triton, like grpc://host:8001 or http://host:8000; -w "
        "names its model.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", *PRECISIONS]),
        help="Arithmetic: fp32 is exact; bf16 and fp16 lose less than 0.02 dB, int8 up to 0.04. "
        "auto is bf16 on processors that multiply it (openvino, torch), fp16 on trt, else fp32. An "
        ".onnx file has its own. [default: auto for --backend auto, else fp32; trt: fp16]",
    ),
    click.option(
        "-j",
        "--threads",
        type=click.IntRange(1),
        callback=threads_at_most,
        help="Threads of ort and openvino on the CPU. [default, and the most: one per core]",
    ),
    click.option(
        "--allow-fallback",
        is_flag=True,
        help="If what is named can't run here, say so and use the CPU. Without it, that is an "
        "error. --backend auto always goes on to the next best, and says so.",
    ),
    click.option(
        "--tta",
        "--ensemble",
        is_flag=True,
        help="Average the results of all turns and mirrorings: eight times as long, a little "
        "closer to the truth.",
    ),
    click.option(
        "-t",
        "--tile",
        type=SizeOrWord("auto"),
        default="auto",
        show_default=True,
        help="Side of a tile in input pixels; 0 for none.",
    ),
    click.option(
        "--halo",
        "--tile-pad",
        type=SizeOrWord("auto", "exact"),
        default="auto",
        show_default=True,
        help=f"Input pixels read around a tile; 'exact' equals the whole image, 'auto' is "
        f"{DEFAULT_HALO}, and measured for networks of other projects.",
    ),
    click.option(
        "--border",
        type=click.Choice(["mirror", "wrap"]),
        help="What the halo shows beyond the picture: 'mirror' for flat graphics, 'wrap' for "
        "textures that tile. [default: nothing, as in training; for data, mirror]",
    ),
)
