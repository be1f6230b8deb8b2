"""``agsr train``: the options of a training run, and where its files are looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agsr.cli.param_types import FileLocation, FilePath
from agsr.errors import UnknownSetError
from agsr.store.address import Location

if TYPE_CHECKING:
    from agsr.training.step.kernels import Kernels


class Setting(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """``NAME=VALUE``, the value as JSON or else as a word."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A pair of name and value."""
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not separator or not name:
            self.fail(f"{value!r} is not NAME=VALUE, like width=32", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


@click.command(short_help="Train a network, resumable at any moment.")
@click.option(
    "--model",
    type=click.Choice(["agsr", "srcnn", "srgan"]),
    help="Network: ours, or one to compare with. [default: agsr]",
)
@click.option(
    "--stage",
    type=click.Choice(["psnr", "gan"]),
    help="Minimise pixel errors, or go on from that with a discriminator. [default: psnr]",
)
@click.option(
    "--degradation",
    type=click.Choice(["bicubic", "photo"]),
    help="How LR images are made: by the field's filter, or with blur, noise, JPEG and more. "
    "[default: bicubic]",
)
@click.option(
    "--init", help="Weights to begin with: a shipped name or a file. [default for agsr gan: psnr]"
)
@click.option(
    "--data",
    multiple=True,
    type=FileLocation,
    help="Tar file or folder of training images; repeatable. [default: $AGSR_DATA/train/*.tar]",
)
@click.option(
    "--val",
    type=FileLocation,
    help="Folder of validation images. [default: $AGSR_DATA/val/Kodak24]",
)
@click.option(
    "--features",
    type=FilePath,
    help="vgg16.npz, for the perceptual loss of gan. [default: $AGSR_DATA/lpips/vgg16.npz]",
)
@click.option(
    "-o", "--output", type=FilePath, help="Folder of the run. [default: runs/MODEL-STAGE[-photo]]"
)
@click.option("--resume", is_flag=True, help="Go on from the state in the output folder, exactly.")
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    help="Stop this many minutes after the start of the command; --resume continues.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    help="Minutes for the whole run, from the start of the command: phases share the time, and the "
    "learning rate has decayed when it is up. With --resume, for the rest of the run.",
)
@click.option(
    "--schedule",
    help="Phases STEPSxITERATIONS[@CROP][/BATCH], comma-separated; CROP in LR pixels.",
)
@click.option(
    "--rate", "peak_rate", type=click.FloatRange(0, min_open=True), help="Peak learning rate."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of weights and data order.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    type=Setting(),
    help="Any field of the configuration or the network, like width=32; repeatable.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--fp32", is_flag=True, help="No bfloat16. [default: where it is slow]")
@click.option(
    "--kernels",
    type=click.Choice(["eager", "compiled", "graph", "compiled-graph", "auto"]),
    default="eager",
    show_default=True,
    help="Of torch's operators, or fused by torch.compile; launched one by one, or from a CUDA "
    "graph. auto times all on the run's first iterations.",
)
@click.option(
    "--tensorboard/--no-tensorboard",
    default=True,
    help="Write a log for TensorBoard. [default: yes]",
)
def train(
    data: tuple[Location, ...],
    val: Location | None,
    features: Path | None,
    init: str | None,
    output: Path | None,
    resume: bool,
    minutes: float | None,
    budget: float | None,
    settings: tuple[tuple[str, Any], ...],
    device: str,
    fp32: bool,
    kernels: Kernels,
    tensorboard: bool,
    **changes: Any,
) -> None:
    """Train a network; Ctrl-C saves and stops. On several GPUs: torchrun -m agsr train ...

    \b
    Exit status: 0 finished or --minutes over, 130 after Ctrl-C, 143 after SIGTERM.
    """
    from agsr.store.mirror import fetched
    from agsr.system.optional_import import require

    for module in ("torch", "safetensors"):
        require(module, extra="train", purpose="Training")
    from agsr.cli.output.training import Limits, follow_training
    from agsr.training.distributed import end_rank, join_world
    from agsr.training.launch import Sources, start_training

    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= dict(settings)
    if budget is not None:
        changes["budget"] = budget
    if fp32:
        changes["bf16"] = False
    model, stage = changes.get("model", "agsr"), changes.get("stage", "psnr")
    faults = ["photo"] if changes.get("degradation") == "photo" else []
    if init is None and (model, stage) == ("agsr", "gan"):
        init = "psnr"
    sources = Sources(
        data=[fetched(source) for source in data] or _default_data("train", "*.tar"),
        validation=[fetched(val)] if val else _default_data("val", "Kodak24"),
        init=init,
        features=features or _optional_data("lpips", "vgg16.npz"),
        lpips=_optional_data("lpips", "alexnet.npz"),
    )
    with join_world(device) as world:
        trainer = start_training(
            sources,
            output or Path("runs", "-".join([model, stage, *faults])),
            world,
            resume=resume,
            kernels=kernels,
            changes=changes,
        )
        limits = Limits(minutes=minutes, budget=budget)
        status = follow_training(trainer, limits, tensorboard=tensorboard)
    end_rank(world, status)
    raise SystemExit(status)


def _default_data(folder: str, pattern: str) -> tuple[Path, ...]:
    from agsr.bench.data.sets import DATA_VARIABLE, data_folder

    found = _find(folder, pattern)
    if not found:
        raise UnknownSetError(
            f"no {folder}/{pattern} under {DATA_VARIABLE}={data_folder() or 'unset'}; "
            "name files or folders with --data and --val"
        )
    return found


def _optional_data(folder: str, name: str) -> Path | None:
    return next(iter(_find(folder, name)), None)


def _find(folder: str, pattern: str) -> tuple[Path, ...]:
    from agsr.bench.data.sets import data_folder

    root = data_folder()
    return tuple(sorted((root / folder).glob(pattern))) if root else ()
