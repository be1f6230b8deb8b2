"""Finding out how a foreign network wants its pixels, by running it on a smooth picture.

What the file declares narrows the guesses, what the network gives for the picture decides: an
output of four times the size that shows the same picture. Data flow: session and `Hints` → `Ports`.
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
from agsr.engines.foreign.io_spec import PEAKS, Array, Hints, Layout, Ports
from agsr.errors import ModelError

_T = TypeVar("_T")

Run = Callable[[Ports, Array], Array]
"""Runs the network on an encoded input; raises `ModelError` where it can't."""

UNLIKE = 0.05
"""Mean difference, of the range, from which the output does not show the input any more.

In its right range, ours is below 0.001 on the smooth picture; in a wrong one, from 0.007 up.
"""

EQUAL = 1e-4
"""Differences closer than this decide nothing: the more usual range is taken."""

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
"""Element types that can be fed and read, by ONNX Runtime's names."""

SIZES = {
    1: (47, 61),
    2: (46, 62),
    4: (44, 60),
    8: (40, 56),
    16: (48, 80),
    32: (32, 96),
    64: (64, 192),
}
"""By multiple, heights and widths that are multiples of it and not of the next."""


def find_io_spec(session: Any, run: Run, hints: Hints, source: str) -> Ports:
    """How to feed a network.

    Args:
        session: ONNX Runtime session.
        run: Runs it.
        hints: What need not be found.
        source: Name of the file, for messages.

    Raises:
        ModelError: The network is none that enlarges pictures by four, or it can't be found how.
    """
    input_port, output_port = _ports(session, hints, source)
    failure = "no layout fits"
    for ports, size in _guesses(input_port, output_port, hints):
        try:
            shaped = _with_output_layout(ports, run, size, source)
        except _NoFitError as error:
            failure = str(error)
            continue
        return _with_peaks(shaped, output_port, run, size, hints, source)
    raise ModelError(
        f"{source}: found no way to feed its {_names([input_port])}: {failure}; tell its layout, "
        "channels, and size or multiple"
    )


class _NoFitError(Exception):
    """A guess was wrong."""


def _ports(session: Any, hints: Hints, source: str) -> tuple[Any, Any]:
    """The input, and the output that counts."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise ModelError(f"{source}: takes {_names(inputs)}; expected the picture alone")
    chosen = [port for port in outputs if hints.output in (None, port.name)]
    if len(chosen) != 1:
        raise ModelError(f"{source}: gives {_names(outputs)}; name one of them as output")
    for port in (*inputs, *chosen):
        # A dynamic rank has no shape at all.
        if port.type not in TYPES or (port.shape and len(port.shape) != 4):
            raise ModelError(
                f"{source}: {port.name} is {port.type} {port.shape}; expected rank 4 of "
                f"{', '.join(TYPES.values())}"
            )
    return inputs[0], chosen[0]


def _guesses(
    input_port: Any, output_port: Any, hints: Hints
) -> Iterator[tuple[Ports, tuple[int, int]]]:
    """Ports that the declared shape and the hints allow, each with a size to try, likely first."""
    declared = [d if isinstance(d, int) and d > 0 else None for d in input_port.shape or [None] * 4]
    multiples = [hints.multiple] if hints.multiple else list(SIZES)
    for multiple, (layout, channels, only) in product(multiples, _shapes(declared, hints)):
        if only and multiple != multiples[0]:
            continue  # tried already: it is the size, whatever the multiple
        ports = Ports(
            input=input_port.name,
            output=output_port.name,
            input_type=TYPES[input_port.type],
            input_layout=layout,
            output_layout=layout,
            channels=channels,
            order=hints.order,
            batch=declared[0],
            size=only,
            multiple=1 if only else multiple,
        )
        yield ports, only or SIZES.get(multiple) or _multiples(multiple)


def _shapes(
    declared: list[int | None], hints: Hints
) -> list[tuple[Layout, int, tuple[int, int] | None]]:
    """Layout, channels and only size that a declared shape can mean."""
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
    """Two multiples of a number, where possible of some fifty pixels."""
    count = max(1, 48 // number)
    return count * number, (count + 1) * number


def _by_axis(shape: Sequence[_T], layout: Layout) -> tuple[_T, _T, _T]:
    """Channels, height and width of a shape of rank 4."""
    if layout == "NCHW":
        return shape[1], shape[2], shape[3]
    return shape[3], shape[1], shape[2]


def _only_size(height: int | None, width: int | None) -> tuple[int, int] | None:
    """The size a shape allows; a free side beside a fixed one is taken as long as that."""
    fixed = height or width
    return (height or fixed, width or fixed) if fixed else None


def _with_output_layout(ports: Ports, run: Run, size: tuple[int, int], source: str) -> Ports:
    """The ports with the layout in which the output is four times as large as the input."""
    shape = _run(ports, run, _picture(*size)).shape
    for layout in get_args(Layout):
        depth, height, width = _by_axis(shape, layout)
        scale = height // size[0]
        if (depth, height, width) != (ports.channels, size[0] * scale, size[1] * scale):
            continue
        if scale != SCALE:
            raise ModelError(f"{source}: enlarges by {scale}; expected {SCALE}")
        return replace(ports, output_layout=layout)
    raise _NoFitError(f"{size[0]}x{size[1]} pixels gave an output of {shape}")


def _with_peaks(
    ports: Ports, output_port: Any, run: Run, size: tuple[int, int], hints: Hints, source: str
) -> Ports:
    """The ports with the ranges in which the output shows the input."""
    into = _peaks(ports.input_type, hints.input_peak)
    out = _peaks(TYPES[output_port.type], hints.output_peak)
    picture = _picture(*size)
    # Equal ranges are more usual than two, and 1 more than 255.
    guesses = sorted(product(into, out), key=lambda peaks: (peaks[0] != peaks[1], peaks))
    found = {
        guess: _difference(replace(ports, input_peak=guess[0], output_peak=guess[1]), run, picture)
        for guess in guesses
    }
    least = min(found.values())
    if len(found) > 1 and least > UNLIKE:
        raise ModelError(
            f"{source}: its output does not show its input, whether white is 1 or 255; "
            "give input_peak and output_peak if it is right so"
        )
    best = next(guess for guess in guesses if found[guess] <= least + EQUAL)
    return replace(ports, input_peak=best[0], output_peak=best[1])


def _peaks(kind: str, told: int | None) -> tuple[int, ...]:
    """Values of white that are possible."""
    if kind == "uint8":
        return (255,)
    return (told,) if told else PEAKS


def _difference(ports: Ports, run: Run, picture: Batch) -> float:
    """Mean difference between the picture and the output, shrunk to its size."""
    try:
        sr = ports.decode(_run(ports, run, picture), picture)
    except _NoFitError:
        return float("inf")
    if not np.isfinite(sr).all():
        return float("inf")
    batch, channels, height, width = picture.shape
    blocks = sr.reshape(batch, channels, height, SCALE, width, SCALE).mean(axis=(3, 5))
    return float(np.abs(blocks - picture).mean())


def _run(ports: Ports, run: Run, picture: Batch) -> Array:
    try:
        result = run(ports, ports.encode(picture))
    except ModelError as error:
        raise _NoFitError(str(error)) from None
    if result.ndim != 4:
        raise _NoFitError(f"its output is of shape {result.shape}")
    return result


def _picture(height: int, width: int) -> Batch:
    """``(1, 3, H, W)``: ramps, dark to bright in another direction for each colour."""
    down: NDArray[np.float32] = np.linspace(0.1, 0.9, height, dtype=np.float32)[:, None]
    across: NDArray[np.float32] = np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :]
    planes = np.broadcast_arrays(down, across, (down + across) / 2)
    return np.stack(planes)[None]


def _names(ports: Any) -> str:
    return ", ".join(f"{port.name} {port.shape}" for port in ports)
