"""The page of errors, against the errors that commands print and the classes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import agsr
from conftest import ROOT
from PIL import Image

from agsr import errors

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()

PROVOKED = {
    "no weights named '…'": ["infer", "a.png", "-w", "psnrr"],
    "…: int8 has no ranges of values for …": ["infer", "a.png", "-s", "9", "--precision", "int8"],
    "… pixels, more than …": ["infer", "a.png", "--max-pixels", "4"],
    "scale is …; expected above 0, at most 16": ["infer", "a.png", "--scale", "99"],
    "not an image, or truncated": ["infer", "text.png"],
    "truncated: …": ["infer", "cut.png"],
    "a folder; add -r to upscale the images in it": ["infer", "."],
    "can't write .…; expected one of …": ["infer", "a.png", "-o", "a.jp2"],
    "has no effect": ["infer", "a.png", "--crf", "20"],
    "no image set '…'": ["eval", "--set", "Set6"],
}
"""The messages that the page quotes, and what provokes each."""

WRITTEN = {
    "no NVIDIA driver here … so no GPU to run TensorRT on": "engines/tensorrt",
    "provider '…' is not installed": "engines/runtimes",
}
"""Messages that only some machines give, and the package that holds their text."""


def _headings() -> set[str]:
    """Quoted messages in bold; a name in quotes counts as ``…``."""
    found = re.findall(r"\*\*`([^`]+)`\*\*", PAGE)
    return {re.sub(r"'\w+'", "'…'", quoted) for quoted in found}


def _files(folder: Path) -> None:
    Image.effect_noise((32, 32), 50).save(folder / "a.png")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "text.png").write_text("not an image")


def test_every_quoted_message_is_checked() -> None:
    assert _headings() == {*PROVOKED, *WRITTEN}


@pytest.mark.parametrize("quoted", PROVOKED)
def test_a_quoted_message_is_what_the_command_prints(
    quoted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGSR_DATA", raising=False)
    result = agsr(*PROVOKED[quoted])
    assert result.exit_code in (1, 2)
    pattern = ".*".join(map(re.escape, quoted.split("…")))
    assert re.search(pattern, " ".join(result.stderr.split()))


@pytest.mark.parametrize("quoted", WRITTEN)
def test_a_quoted_message_of_other_machines_is_in_the_source(quoted: str) -> None:
    source = "".join(path.read_text() for path in (ROOT / WRITTEN[quoted]).glob("*.py"))
    text = re.sub(r'"\s*f?"', "", source)
    assert all(part.strip("' ") in text for part in quoted.split("…"))


def test_every_error_class_is_explained() -> None:
    explained = set(re.findall(r"`(\w+Error)`", PAGE))
    assert explained == {name for name in errors.__all__ if name.endswith("Error")}
