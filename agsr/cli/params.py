"""What the commands share: options, parameter types, and how paths and errors are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.commands import STDOUT
from agsr.contract import DEFAULT_STEPS, MAX_STEPS, PRECISIONS
from agsr.engines.places import BACKENDS, RUNTIMES, Place
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.system.control_groups import usable_cpus
from agsr.system.text import counted, printable, without_controls
from agsr.tiling import DEFAULT_HALO

if TYPE_CHECKING:
    from agsr.engines.upscaler import Upscaler

LARGEST_SIZE = 1_000_000
"""Largest tile or halo that is not taken for a typing mistake, pixels."""

Command = Callable[..., Any]
FilePath = click.Path(path_type=Path, readable=False)  # or one file would stop all others


def check_ending(path: Path, ending: str) -> None:
    """Refuse a result's name that may be another file's, like a photo's.

    Raises:
        click.UsageError: It does not end so.
    """
    if path.suffix.lower() != ending:
        raise click.UsageError(f"-o {path} does not end in {ending}")


class AliasChoice(click.Choice):  # type: ignore[type-arg]  # not generic before click 8.2
    """A choice in which some words have other names.

    Args:
        choices: The words.
        aliases: Other names, in lower case, with the words they mean.
    """

    def __init__(self, choices: Sequence[str], aliases: Mapping[str, str]) -> None:
        super().__init__(choices)
        self._aliases = aliases

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, in lower case; a dot before it is no part of it."""
        word = str(value).lower().removeprefix(".")
        return super().convert(self._aliases.get(word, word), param, ctx)


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


class SizeOrWord(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A number of pixels from 0, or one word."""

    def __init__(self, word: str) -> None:
        self.name = f"{word}|PIXELS"
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word as it is, digits as a number."""
        if value == self.word or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) > LARGEST_SIZE:
            self.fail(
                f"{value!r} is neither '{self.word}' nor a number of pixels up to {LARGEST_SIZE}",
                param,
                ctx,
            )
        return int(value)


class CommaList(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """Words or numbers with commas between them."""

    def __init__(self, name: str, item: click.ParamType[Any] = click.STRING) -> None:
        self.name, self._item = name, item

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Each part as the item's type has it."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not parts:
            self.fail("empty; expected at least one", param, ctx)
        return tuple(dict.fromkeys(self._item.convert(part, param, ctx) for part in parts))


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """``WIDTHxHEIGHT`` in pixels, the order of every option."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``(width, height)``."""
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, like 1920x1080", param, ctx)
        return int(width), int(height)


class SizeList(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """Sizes like ``320x180``, or the word ``set``, separated by commas."""

    name = "WxH|set,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Every part as ``(height, width)`` or ``"set"``."""
        parts = (part.strip() for part in str(value).split(","))
        return tuple(dict.fromkeys(self._size(part, param, ctx) for part in parts))

    def _size(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if text == "set":
            return text
        try:
            width, height = Size().convert(text, param, ctx)
        except click.BadParameter:
            self.fail(f"{text!r} is neither WIDTHxHEIGHT nor 'set'", param, ctx)
        return height, width


def echo_path(path: Path) -> None:
    """A result's path on stdout, in one line: its very bytes for programs, as far as they are no
    control characters, which are escaped; for terminals, all that is no text is escaped.

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
    """Warn of a number of threads beyond the processors; the backends start no more than these."""
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


weights_option = click.option(
    "-w",
    "--weights",
    default=DEFAULT_WEIGHTS,
    show_default=True,
    help="psnr: most faithful, for clean inputs. gan: crisp, with plausible texture. photo: for "
    "compressed, noisy or soft inputs. Or an .onnx or .safetensors file.",
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
running_options = _shared(
    weights_option,
    steps_option,
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
        help="Device of torch, or GPU of trt and ort, like cuda:1. [default: cpu; trt: cuda:0]",
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
        type=SizeOrWord("exact"),
        default=DEFAULT_HALO,
        show_default=True,
        help="Input pixels read around a tile; 'exact' equals the whole image.",
    ),
    click.option(
        "--border",
        type=click.Choice(["mirror", "wrap"]),
        help="What the halo shows beyond the picture: 'mirror' for flat graphics, 'wrap' for "
        "textures that tile. [default: nothing, as in training; for data, mirror]",
    ),
)


def open_upscaler(
    weights: str, steps: int | None, backend: str, tile: Any, halo: Any, **options: Any
) -> Upscaler:
    """The `Upscaler` that `running_options` ask for, with a bar while an engine is built."""
    from agsr.engines.upscaler import Upscaler

    options |= {"backend": backend, "steps": steps, "tile": tile, "halo": halo}
    if backend != "trt" and not _may_build(backend, options):
        return Upscaler(weights, **options)
    from agsr.cli.output.tables import build_progress

    with build_progress(f"building an engine of {weights}") as progress:
        return Upscaler(weights, progress=progress, **options)


def _may_build(backend: str, options: Mapping[str, Any]) -> bool:
    """Whether ``auto`` may build an engine, which takes minutes and is shown."""
    if backend != "auto" or options["provider"] or options["device"]:
        return False
    from agsr.engines.ranking import missing_requirement

    return not missing_requirement(Place("trt"))
