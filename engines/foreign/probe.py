"""Find a foreign network's input and output format by running it on a smooth picture.

The declared shapes narrow the guesses, and the output decides: it must be four times as large and
show the same picture. Data flow: session and `Hints` → `IoSpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.contract import CHANNELS, SCALE
from agsr.engines.foreign.io_spec import PEAKS, Array, Hints, IoSpec, Layout
from agsr.errors import ModelError

_T = TypeVar("_T")

Run = Callable[[IoSpec, Array], Array]
"""Runs the network on an encoded input; raises `ModelError` where it can't."""

UNLIKE = 0.05
"""Mean difference, as a share of the range, above which the output does not show the input.

Our network is below 0.001 on the smooth picture in the right range, and above 0.007 in a wrong one.
"""

EQUAL = 1e-4
"""Differences closer than this count as equal; then the more common range is chosen."""

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
"""Supported element types, by ONNX Runtime's names."""

SIZES = {
    1: (47, 61),
    2: (46, 62),
    4: (44, 60),
    8: (40, 56),
    16: (48, 80),
    32: (32, 96),
    64: (64, 192),
}
"""Heights and widths by multiple: multiples of it, but not of the next one."""


def find_io_spec(session: Any, run: Run, hints: Hints, source: str) -> IoSpec:
    """Find a network's input and output format.

    Args:
        session: ONNX Runtime session, or `agsr.engines.runtimes.openvino_session.OpenVinoSession`.
        run: Runs it.
        hints: Known properties.
        source: Name of the file, for messages.

    Raises:
        ModelError: The network does not upscale pictures by four, or its format can't be found.
    """
    lr, sr = _choose_tensors(session, hints, source)
    failure = "no layout fits"
    for spec, size in _guesses(lr, sr, hints):
        try:
            shaped = _with_output_layout(spec, run, size, source)
        except _NoFitError as error:
            failure = str(error)
            continue
        return _with_peaks(shaped, sr, run, size, hints, source)
    raise ModelError(
        f"{source}: found no input format for its {_names([lr])}: {failure}; give hints for its "
        "layout, channels, and size or multiple"
    )


class _NoFitError(Exception):
    """A guess was wrong."""


def _choose_tensors(session: Any, hints: Hints, source: str) -> tuple[Any, Any]:
    """Return the input, and the output that has the picture."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise ModelError(f"{source}: has the inputs {_names(inputs)}; expected only the picture")
    chosen = [tensor for tensor in outputs if hints.output in (None, tensor.name)]
    if len(chosen) != 1:
        raise ModelError(
            f"{source}: has the outputs {_names(outputs)}; choose one with the hint output=NAME"
        )
    for tensor in (*inputs, *chosen):
        # A dynamic rank has no shape at all.
        if tensor.type not in TYPES or (tensor.shape and len(tensor.shape) != 4):
            raise ModelError(
                f"{source}: {tensor.name} is {tensor.type} {tensor.shape}; expected rank 4 of "
                f"{', '.join(TYPES.values())}"
            )
    return inputs[0], chosen[0]


def _guesses(lr: Any, sr: Any, hints: Hints) -> Iterator[tuple[IoSpec, tuple[int, int]]]:
    """List the formats that declared shape and hints allow, likely first, with a size to try."""
    declared = [d if isinstance(d, int) and d > 0 else None for d in lr.shape or [None] * 4]
    multiples = [hints.multiple] if hints.multiple else list(SIZES)
    for multiple, (layout, channels, only) in product(multiples, _shapes(declared, hints)):
        if only and multiple != multiples[0]:
            continue  # already tried: a fixed size does not depend on the multiple
        spec = IoSpec(
            input=lr.name,
            output=sr.name,
            input_type=TYPES[lr.type],
            input_layout=layout,
            output_layout=layout,
            channels=channels,
            order=hints.order,
            batch=declared[0],
            size=only,
            multiple=1 if only else multiple,
        )
        yield spec, only or SIZES.get(multiple) or _multiples(multiple)


def _shapes(
    declared: list[int | None], hints: Hints
) -> list[tuple[Layout, int, tuple[int, int] | None]]:
    """List what a declared shape can mean: layout, channels and fixed size."""
    counts = [hints.channels] if hints.channels else [CHANNELS, 1]
    layouts = [hints.layout] if hints.layout else get_args(Layout)
    certain, possible = [], []
    for channels, layout in product(counts, layouts):
        depth, height, width = _by_axis(declared, layout)
        meaning = (layout, channels, hints.size or _only_size(height, width))
        if depth == channels:
            certain.append(meaning)
        elif depth is None:
            possible.append(meaning)
    return certain or possible


def _multiples(number: int) -> tuple[int, int]:
    """Return two multiples of a number, if possible about fifty pixels."""
    count = max(1, 48 // number)
    return count * number, (count + 1) * number


def _by_axis(shape: Sequence[_T], layout: Layout) -> tuple[_T, _T, _T]:
    """Return channels, height and width of a shape of rank 4."""
    if layout == "NCHW":
        return shape[1], shape[2], shape[3]
    return shape[3], shape[1], shape[2]


def _only_size(height: int | None, width: int | None) -> tuple[int, int] | None:
    """Return the size that a shape fixes; a free side beside a fixed one is made equal to it."""
    fixed = height or width
    return (height or fixed, width or fixed) if fixed else None


def _with_output_layout(spec: IoSpec, run: Run, size: tuple[int, int], source: str) -> IoSpec:
    """Set the layout in which the output is four times as large as the input."""
    shape = _run(spec, run, _picture(*size)).shape
    for layout in get_args(Layout):
        depth, height, width = _by_axis(shape, layout)
        scale = height // size[0]
        if (depth, height, width) != (spec.channels, size[0] * scale, size[1] * scale):
            continue
        if scale != SCALE:
            raise ModelError(f"{source}: upscales by {scale}; expected {SCALE}")
        return replace(spec, output_layout=layout)
    raise _NoFitError(f"{size[1]}x{size[0]} pixels gave an output of {shape}")


def _with_peaks(
    spec: IoSpec, sr: Any, run: Run, size: tuple[int, int], hints: Hints, source: str
) -> IoSpec:
    """Set the ranges in which the output shows the input."""
    into = _peaks(spec.input_type, hints.input_peak)
    out = _peaks(TYPES[sr.type], hints.output_peak)
    picture = _picture(*size)
    # Equal ranges are more common than different ones, and 1 more than 255.
    guesses = sorted(product(into, out), key=lambda peaks: (peaks[0] != peaks[1], peaks))
    found = {
        guess: _difference(replace(spec, input_peak=guess[0], output_peak=guess[1]), run, picture)
        for guess in guesses
    }
    least = min(found.values())
    if len(found) > 1 and least > UNLIKE:
        raise ModelError(
            f"{source}: its output does not show its input, whether white is 1 or 255; "
            "if that is intended, give the hints input_peak and output_peak"
        )
    best = next(guess for guess in guesses if found[guess] <= least + EQUAL)
    return replace(spec, input_peak=best[0], output_peak=best[1])


def _peaks(kind: str, hint: int | None) -> tuple[int, ...]:
    """Return the possible values of white."""
    if kind == "uint8":
        return (255,)
    return (hint,) if hint else PEAKS


def _difference(spec: IoSpec, run: Run, picture: Batch) -> float:
    """Return the mean difference between the picture and the downsampled output."""
    try:
        sr = spec.decode(_run(spec, run, picture), picture)
    except _NoFitError:
        return float("inf")
    if not np.isfinite(sr).all():
        return float("inf")
    batch, channels, height, width = picture.shape
    blocks = sr.reshape(batch, channels, height, SCALE, width, SCALE).mean(axis=(3, 5))
    return float(np.abs(blocks - picture).mean())


def _run(spec: IoSpec, run: Run, picture: Batch) -> Array:
    try:
        result = run(spec, spec.encode(picture))
    except ModelError as error:
        raise _NoFitError(str(error)) from None
    if result.ndim != 4:
        raise _NoFitError(f"its output is of shape {result.shape}")
    return result


def _picture(height: int, width: int) -> Batch:
    """Return ``(1, 3, H, W)``: ramps from dark to bright, in another direction for each colour."""
    down: NDArray[np.float32] = np.linspace(0.1, 0.9, height, dtype=np.float32)[:, None]
    across: NDArray[np.float32] = np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :]
    planes = np.broadcast_arrays(down, across, (down + across) / 2)
    return np.stack(planes)[None]


def _names(tensors: Any) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors)
