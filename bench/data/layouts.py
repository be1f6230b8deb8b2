"""How test sets lie on disk: which files of a folder are HR images, and which are their LR images.

Data flow: a folder → `read_layout` → HR files with the LR files that belong to them, and notes on
what was used and skipped → `agsr.bench.data.sets`. Known are HR and LR in folders (``HR`` and
``LRx4``, ``GTmod12`` and ``LRbicx4``, ``X_HR`` and ``X_LR_bicubic/X4``) and side by side
(``img_001_SRF_4_HR.png`` and ``..._LR.png``, ``0801.png`` and ``0801x4.png``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agsr.bench.data.layout_names import (
    LR_FOLDER,
    SCALE_FOLDER,
    SCALED,
    ImageName,
    hr_base,
    hr_folder_names,
    image_name,
    is_hr_folder,
    is_plain_hr_name,
    lr_name,
)
from agsr.contract import SCALE
from agsr.datasets.pairs import is_image_name
from agsr.engines.batch.headers import stored_size
from agsr.errors import DatasetError, UnknownSetError


@dataclass(frozen=True)
class Layout:
    """The images of a set."""

    hr: tuple[Path, ...]
    """HR files, sorted by name."""
    lr: tuple[Path | None, ...]
    """LR file of each; None where the LR image is made of the HR image."""
    notes: tuple[str, ...] = ()
    """What was used and what was skipped, one line each."""


def read_layout(folder: Path, *, use_lr: bool = True, scale: int = SCALE) -> Layout:
    """Find the HR images of a folder and the LR images that belong to them.

    Args:
        folder: The set, or the folder of its HR images.
        use_lr: Whether LR images are wanted; otherwise they are only recognised, not to be scored.
        scale: HR pixels per LR pixel along each axis; LR images of other scales are skipped.

    Raises:
        DatasetError: There is no image, the folder holds LR images only, or the files can be
            understood in two ways.
    """
    _reject_lr_folder(folder, scale)
    images = _hr_folder(folder, scale)
    files = _images(images)
    if not files:
        raise UnknownSetError(f"{images}: no images in this folder")
    notes = []
    if images != folder:
        if direct := _images(folder):
            notes.append(f"images in {images.name} are used, {len(direct)} beside it skipped")
        elif images.name.upper() != "HR":
            notes.append(f"HR images from {images.name}")
    layout = _side_by_side(images, files, scale)
    if not use_lr:
        count = sum(1 for lr in layout.lr if lr)
        notes += [f"{count} LR images beside the HR images ignored"] if count else []
        return Layout(layout.hr, (None,) * len(layout.hr), tuple(notes))
    if not any(layout.lr):
        root = images.parent if images != folder or is_hr_folder(images, scale) else images
        layout = _with_folder(layout, root, images, scale)
    return Layout(layout.hr, layout.lr, (*notes, *layout.notes))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_image_name(p.name) and p.is_file())


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _reject_lr_folder(folder: Path, scale: int) -> None:
    """Raise if the name is that of a folder of LR images, which can't be scored."""
    folder = folder.resolve()
    inner = SCALE_FOLDER.fullmatch(folder.name) and LR_FOLDER.fullmatch(folder.parent.name)
    if (inner or LR_FOLDER.fullmatch(folder.name)) and not _hr_folders(folder, scale):
        raise UnknownSetError(
            f"{folder}: a folder of LR images by its name; name the folder of the HR images, or "
            "the one that holds both"
        )


def _hr_folders(folder: Path, scale: int) -> list[Path]:
    """The subfolders of HR images that have the first of the known names."""
    folders = _folders(folder)
    patterns = hr_folder_names(scale)
    named = ([f for f in folders if pattern.fullmatch(f.name)] for pattern in patterns)
    return next(filter(None, named), [])


def _hr_folder(folder: Path, scale: int) -> Path:
    found = _hr_folders(folder, scale)
    if found and _images(folder) and [f.name.upper() for f in found] != ["HR"]:
        raise DatasetError(
            f"{folder}: images in it and in {found[0].name}; name the one that is meant"
        )
    if len(found) > 1 and not _images(folder):
        names = ", ".join(f.name for f in found)
        raise DatasetError(f"{folder}: several folders of HR images ({names}); name one of them")
    return found[0] if len(found) == 1 else folder


def _side_by_side(folder: Path, files: Sequence[Path], scale: int) -> Layout:
    """HR and LR images in one folder, by their names."""
    names = {path: image_name(path) for path in files}
    roles = {name.role for name in names.values()}
    if "HR" in roles:
        return _marked(folder, names, scale)
    if "LR" in roles:
        return _lr_marked(folder, names, scale)
    return _unmarked(files, scale)


def _marked(folder: Path, names: dict[Path, ImageName], wanted: int) -> Layout:
    """Files marked as HR, beside marked LR images and results of other methods."""
    if plain := [path.name for path, name in names.items() if not name.role]:
        raise DatasetError(
            f"{folder}: names marked HR beside names without a mark ({_some(plain)}); move the HR "
            "images into a folder HR"
        )
    scales = {name.scale for name in names.values() if name.role == "HR"} - {None}
    if len(scales) > 1 and wanted not in scales:
        raise DatasetError(
            f"{folder}: HR images of several scales ({sorted(filter(None, scales))}), none of "
            f"x{wanted}; name a folder with those of one scale"
        )
    scale = wanted if wanted in scales or not scales else next(iter(scales))
    here = {path: n for path, n in names.items() if n.scale in (None, scale)}
    hr = [path for path, n in here.items() if n.role == "HR"]
    lr = {p: n for p, n in here.items() if n.role == "LR" and (n.scale or scale) == wanted}
    used = _matched(hr, lr, {path: names[path].base for path in hr})
    skipped = [path for path in names if path not in {*hr, *used}]
    return Layout(tuple(hr), used, _notes(used, skipped))


def _lr_marked(folder: Path, names: dict[Path, ImageName], scale: int) -> Layout:
    """Files marked as LR, beside HR images without a mark."""
    hr = [path for path, n in names.items() if n.role != "LR" and n.scale is None]
    if not hr:
        raise UnknownSetError(
            f"{folder}: LR images only, by their names; expected HR images, named like "
            "img_HR.png beside img_LR.png"
        )
    lr = {p: n for p, n in names.items() if n.role == "LR" and n.scale in (None, scale)}
    used = _matched(hr, lr, {path: path.stem for path in hr})
    skipped = [path for path in names if path not in {*hr, *used}]
    return Layout(tuple(hr), used, _notes(used, skipped))


def _unmarked(files: Sequence[Path], wanted: int) -> Layout:
    """Names like ``0801x4``, where ``0801`` is there too, by their size: LR images or results."""
    stems = {path.stem: path for path in files}
    lr: dict[Path, ImageName] = {}
    results = []
    for path in files:
        match = SCALED.fullmatch(path.stem)
        whole = stems.get(match["base"]) if match else None
        if match is None or whole is None:
            continue
        scale = int(match["scale"])
        own, of_whole = stored_size(path), stored_size(whole)
        if _is_smaller(own, of_whole, scale):
            lr[path] = ImageName(match["base"], "LR", scale)
        elif _is_smaller(of_whole, own, scale) or own == of_whole:
            results.append(path)
    hr = [path for path in files if path not in lr and path not in results]
    fitting = {path: name for path, name in lr.items() if name.scale == wanted}
    if 2 * len(fitting) < len(hr):  # strays: most HR images have none
        fitting = {}
    used = _matched(hr, fitting, {path: path.stem for path in hr})
    skipped = [path for path in lr if path not in fitting]
    notes = _notes(used, skipped)
    if results:
        notes = (*notes, f"{len(results)} upscaled results skipped ({_some(results)})")
    return Layout(tuple(hr), used, notes)


def _is_smaller(small: tuple[int, int] | None, large: tuple[int, int] | None, scale: int) -> bool:
    """Return True if one image has the size of another, divided by a scale and rounded."""
    if small is None or large is None:
        return False
    return all(x in (y // scale, -(-y // scale)) for x, y in zip(small, large, strict=True))


def _with_folder(layout: Layout, root: Path, images: Path, scale: int) -> Layout:
    """The LR images of a folder beside that of the HR images, if there is one."""
    found, others = _lr_folders(root, images, scale)
    notes = [f"LR images of other scales skipped ({_some(others)})"] if others else []
    if not found:
        return Layout(layout.hr, layout.lr, (*layout.notes, *notes))
    if len(found) > 1:
        names = ", ".join(str(f.relative_to(root)) for f in found)
        raise DatasetError(
            f"{root}: several folders of x{scale} LR images ({names}); leave one of them there"
        )
    (folder,) = found
    files = _images(folder)
    lr = {path: lr_name(path) for path in files}
    used = _matched(layout.hr, lr, {path: hr_base(path) for path in layout.hr})
    if not any(used):
        raise DatasetError(
            f"{folder}: no name belongs to an HR image in {images}; expected names like "
            f"{layout.hr[0].stem}{layout.hr[0].suffix} or {layout.hr[0].stem}x{scale}.png"
        )
    notes.insert(0, f"LR images from {folder.relative_to(root)}")
    return Layout(layout.hr, used, (*layout.notes, *notes))


def _lr_folders(root: Path, images: Path, scale: int) -> tuple[list[Path], list[str]]:
    """Folders of LR images that belong to the HR images, and the names of those of other scales.

    Of several, those made by bicubic count.
    """
    prefix = re.sub(r"_?(HR|GT)$", "", images.name, flags=re.IGNORECASE) if images != root else ""
    prefix = "" if is_plain_hr_name(images.name, scale) else prefix
    found, others = [], []
    for folder in _folders(root):
        match = LR_FOLDER.fullmatch(folder.name)
        if match is None or (match["prefix"] or "") not in ("", prefix):
            continue
        inner = {m[1]: f for f in _folders(folder) if (m := SCALE_FOLDER.fullmatch(f.name))}
        others += [f"{folder.name}/{f.name}" for s, f in inner.items() if int(s) != scale]
        if str(scale) in inner:
            found.append(inner[str(scale)])
        elif match["scale"] and int(match["scale"]) != scale:
            others.append(folder.name)
        elif _images(folder):
            if match["scale"] or _has_scale(folder, images, scale):
                found.append(folder)
            else:
                others.append(folder.name)
    bicubic = [f for f in found if "bic" in str(f.relative_to(root)).lower()]
    return bicubic or found, others


def _has_scale(folder: Path, images: Path, scale: int) -> bool:
    """Whether the LR images of a folder whose name has no scale are those of this scale."""
    hr = {hr_base(path): path for path in _images(images)}
    pairs = ((path, hr[base]) for path in _images(folder) if (base := lr_name(path).base) in hr)
    first = next(pairs, None)
    if first is None:
        return False
    small, large = map(stored_size, first)
    return _is_smaller(small, large, scale)


def _matched(
    hr: Iterable[Path], lr: dict[Path, ImageName], bases: dict[Path, str]
) -> tuple[Path | None, ...]:
    """The LR file of each HR file; None for all where there is none at all."""
    counts = Counter(name.base for name in lr.values())
    if double := [base for base in bases.values() if counts[base] > 1]:
        names = [path for path, name in lr.items() if name.base == double[0]]
        raise DatasetError(
            f"{names[0].parent}: several LR images of {double[0]} ({_some(names)}); leave one there"
        )
    known = {name.base: path for path, name in lr.items()}
    return tuple(known.get(bases[path]) for path in hr)


def _notes(used: Sequence[Path | None], skipped: Sequence[Path]) -> tuple[str, ...]:
    given = [path for path in used if path]
    notes = [f"LR images from the files beside the HR images ({_some(given)})"] if given else []
    if skipped:
        notes.append(f"{len(skipped)} other files skipped ({_some(skipped)})")
    return tuple(notes)


def _some(names: Sequence[Path | str]) -> str:
    """The first of several names."""
    first = names[0].name if isinstance(names[0], Path) else names[0]
    return first + ", …" * (len(names) > 1)
