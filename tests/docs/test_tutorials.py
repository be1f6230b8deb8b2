"""Every command of the tutorials, in order, in a clean folder with the files that they start from.

Blocks named ``sh`` and ``python`` run; ``console`` marks what needs hours or hardware.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import clips
import community_files
import numpy as np
import pytest
from conftest import PHOTO, ROOT
from image_corpus import smooth
from PIL import Image

TUTORIALS = ROOT / "docs" / "tutorials"


def _photo(path: Path, side: int = 24, place: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(PHOTO) as image:
        image.crop((place, place, place + side, place + side)).save(path)


def _album(folder: Path) -> None:
    _photo(folder / "album" / "a.jpg")
    _photo(folder / "album" / "trip" / "b.png")


def _textures(folder: Path) -> None:
    _photo(folder / "textures" / "wall.png")
    for name in ("sprite", "gloss"):
        Image.fromarray(smooth((16, 16, 4))).save(folder / "textures" / f"{name}.png")
    x, y = np.meshgrid(np.linspace(-0.4, 0.4, 16), np.linspace(-0.4, 0.4, 16))
    normals = np.stack((x, y, np.sqrt(1 - x**2 - y**2)), 2)
    pixels = np.round((normals + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "textures" / "wall_n.png")


def _community(folder: Path) -> None:
    _photo(folder / "photo.png")
    _photo(folder / "pictures" / "a.png", 64, 20)
    community_files.make("compact", folder / "4x-net.pth")


def _training(folder: Path) -> None:
    _photo(folder / "photo.png")
    _photo(folder / "images" / "a.png", 96, 0)
    _photo(folder / "val" / "b.png", 64, 60)
    _photo(folder / "pictures" / "b.png", 64, 60)


GIVEN: dict[str, Callable[[Path], None]] = {
    "photo": lambda folder: _photo(folder / "photo.jpg"),
    "album": _album,
    "old-video": lambda folder: clips.make(folder / "clip.mp4") and None,
    "textures": _textures,
    "community-model": _community,
    "train": _training,
    "serve": lambda folder: _photo(folder / "photo.jpg"),
    "ci-gate": _training,
    "paper": _training,
}
"""What each tutorial says you have."""

SIZES = {
    "photo": {"photo_x4.png": 96, "clean.png": 96, "photo_x2.jpg": 48, "screen.png": 384},
    "album": {"large/a_x4.jpg": 96, "shared/trip/b_x4.png": 96, "parts/a_x4.png": 96},
    "old-video": {"photo-4.png": 128},
    "textures": {"large/wall.png": 96, "large/gloss.png": 64, "large/wall_n.png": 64},
    "community-model": {"by-onnx.png": 96},
    "train": {"by-mine.png": 96},
    "serve": {"large.png": 48, "small.webp": 384},
}
"""Width of some of the results."""


def _blocks(name: str) -> list[tuple[str, str]]:
    text = (TUTORIALS / f"{name}.md").read_text()
    return re.findall(r"^```(sh|python|console)\n(.*?)^```$", text, re.M | re.S)


def _script(blocks: list[tuple[str, str]], folder: Path) -> str:
    """One shell script, so that variables and background processes outlive their block."""
    lines = []
    for number, (language, block) in enumerate(blocks):
        if language == "python":
            (folder / f".block-{number}.py").write_text(block)
            lines.append(f"{sys.executable} .block-{number}.py")
        elif language == "sh":
            lines.append(block)
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(folder: Path) -> dict[str, str]:
    """The command by its name, and torchvision in every process, as the tests have it."""
    (folder / ".bin").mkdir()
    command = folder / ".bin" / "agsr"
    (folder / ".bin" / "sitecustomize.py").write_text("import torchvision_operators")
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m agsr "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "AGSR_DATA"}
    modules = os.pathsep.join(map(str, (command.parent, ROOT, ROOT / "tests" / "helpers")))
    return kept | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": modules}


@pytest.mark.parametrize("name", GIVEN)
def test_the_commands_of_a_tutorial_work_in_order(name: str, tmp_path: Path) -> None:
    GIVEN[name](tmp_path)
    script = _script(_blocks(name), tmp_path).replace("8188", str(_free_port()))
    done = subprocess.run(
        ["bash", "-eu", "-c", "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n" + script],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for result, width in SIZES.get(name, {}).items():
        with Image.open(tmp_path / result) as image:
            assert image.width == width, result


def test_every_tutorial_is_run_and_listed() -> None:
    pages = {path.stem for path in TUTORIALS.glob("*.md")} - {"README"}
    assert pages == set(GIVEN)
    listed = re.findall(r"\]\(([a-z-]+)\.md\)", (TUTORIALS / "README.md").read_text())
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("name", GIVEN)
def test_a_tutorial_is_mostly_commands_that_run(name: str) -> None:
    languages = [language for language, _ in _blocks(name)]
    assert languages.count("console") < len(languages) - languages.count("console")
