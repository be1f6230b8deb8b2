"""What names in a test set mean: the role and scale of a file or folder.

Data flow: paths → patterns of the field's data sets → `ImageName` → `agsr.bench.data.layouts`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_PLAIN_HR_FOLDERS = ("HR", "HR_?x{scale}", "GTmod12", "GTmod4", "GT", "original")
_SRF_FOLDER = "image_SRF_{scale}"
_PREFIXED_HR_FOLDER = r".+_(?:HR|GT)"

LR_FOLDER = re.compile(
    r"(?:(?P<prefix>.+)_)?LR(?:_?(?:bic|bicubic|BI|BD|DN|unknown|mild|wild|difficult))?"
    r"(?:_?x(?P<scale>\d+))?",
    re.IGNORECASE,
)
"""Names of folders of LR images, with the set and the scale, if they are in the name."""
SCALE_FOLDER = re.compile(r"x(\d+)", re.IGNORECASE)
"""Names of folders of one scale, inside a folder of LR images."""
_SRF = re.compile(r"(?P<base>.+)_SRF_(?P<scale>\d+)_(?P<role>.+)", re.IGNORECASE)
_MARKED = re.compile(
    r"(?P<base>.+?)_(?P<role>HR|GT|LR(?:BI)?)(?:_?x(?P<scale>\d+))?", re.IGNORECASE
)
SCALED = re.compile(r"(?P<base>.+?)_?x(?P<scale>\d+)", re.IGNORECASE)
"""Names of images that end in a scale."""


class ImageName(NamedTuple):
    """An image's name, split by its marks."""

    base: str
    role: str
    """``HR``, ``LR``, ``""`` for unmarked, or the name of a method."""
    scale: int | None


def hr_folder_names(scale: int) -> list[re.Pattern[str]]:
    """Return the names of folders of HR images by scale; the first one found is used."""
    patterns = [name.format(scale=scale) for name in (*_PLAIN_HR_FOLDERS, _SRF_FOLDER)]
    return [re.compile(name, re.IGNORECASE) for name in (*patterns, _PREFIXED_HR_FOLDER)]


def is_hr_folder(folder: Path, scale: int) -> bool:
    """Return True if the folder has a name that is used for HR images."""
    return any(pattern.fullmatch(folder.name) for pattern in hr_folder_names(scale))


def is_plain_hr_name(name: str, scale: int) -> bool:
    """Return True if a name is one for HR images, without the name of a set before it."""
    return any(pattern.fullmatch(name) for pattern in hr_folder_names(scale)[:-1])


def image_name(path: Path) -> ImageName:
    """Split the name of an image by the marks in it; without a mark the role is empty."""
    if match := _SRF.fullmatch(path.stem) or _MARKED.fullmatch(path.stem):
        role = match["role"].upper()
        role = {"GT": "HR", "LRBI": "LR"}.get(role, role)
        return ImageName(match["base"], role, int(match["scale"]) if match["scale"] else None)
    return ImageName(path.stem, "", None)


def hr_base(path: Path) -> str:
    """Return the part of an HR image's name that its LR image shares."""
    name = image_name(path)
    return name.base if name.role == "HR" else path.stem


def lr_name(path: Path) -> ImageName:
    """Split the name of an image that is known to be LR, marked or not."""
    name = image_name(path)
    if name.role == "LR":
        return name
    match = SCALED.fullmatch(path.stem)
    return ImageName(match["base"] if match else path.stem, "LR", None)
