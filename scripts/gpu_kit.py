"""The command line of the GPU kit: pack, slim and restore here; run there; rehearse without a GPU.

`gpu_pack` puts together what travels, `gpu_run` runs the stages, `gpu_rehearse` does all of it on
the CPU. Nothing here needs a package outside the standard library, so that the first command on a
bare machine can install what it carries.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gpu_pack
import gpu_rehearse
import gpu_run


def main(arguments: list[str]) -> int:
    """Run a command; the exit status is 1 if something failed, 2 if it was not understood."""
    own, _, extra = _split(arguments)
    options = _parser().parse_args(own)
    if extra and options.command != "run":
        sys.exit("options behind -- are for 'run ... train'")
    try:
        if options.command == "run":
            stages = gpu_run.parse_stages(options.stages)
            settings = gpu_run.Settings.from_environment(options.seconds, options.name, extra)
            return gpu_run.run(stages, settings)
        return int(options.action(options) or 0)
    except gpu_pack.KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    """What is before and behind ``--``."""
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/gpu_kit.sh", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="stages: check, train MINUTES, speed")
    run.add_argument("stages", nargs="+", metavar="STAGE")
    run.add_argument("--seconds", type=float, default=560, help="for all stages [560]")
    run.add_argument("--name", default="psnr", help="of the run's folder [psnr]")

    pack = commands.add_parser("pack", help="assemble what travels, in parts below the limit")
    pack.add_argument("folder", type=Path)
    pack.add_argument("--run", type=Path, help="folder of a run to resume there")
    pack.add_argument("--wheel", type=Path, action="append", default=[], help="one more wheel")
    pack.add_argument("--gan", action="store_true", help="VGG16 and LPIPS weights too")
    pack.add_argument("--limit", type=float, default=gpu_pack.LIMIT, help="MiB per part [60]")
    pack.add_argument("--offline", action="store_true", help="no wheels but those of --wheel")
    pack.set_defaults(action=gpu_pack.pack_command)

    size = commands.add_parser("size", help="sum what would travel; fails above the limit")
    size.add_argument("folders", type=Path, nargs="*", help="parts that are named to the transfer")
    size.add_argument("--limit", type=float, default=gpu_pack.MOST, help="MiB [64]")
    size.set_defaults(action=gpu_pack.size_command)

    slim = commands.add_parser("slim", help="git rm what no stage needs; undo it by restore")
    slim.set_defaults(action=lambda _: gpu_pack.slim(Path.cwd()))
    restore = commands.add_parser("restore", help="bring back what slim removed")
    restore.set_defaults(action=lambda _: gpu_pack.restore(Path.cwd()))

    rehearse = commands.add_parser("rehearse", help="all of it on the CPU, with tiny sizes")
    rehearse.add_argument("folder", type=Path)
    rehearse.add_argument("--wheel", type=Path, action="append", default=[], help="to install")
    rehearse.add_argument("--short", action="store_true", help="without the stage check")
    rehearse.set_defaults(action=gpu_rehearse.rehearse_command)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
