"""Find a foreign network's input and output format by running it on a smooth picture.

The declared shapes narrow the guesses, and the output decides: it must be larger by a whole number,
the scale, and show the same picture. Data flow: session and `Hints` → `IoSpec`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from agsr.contract import CHANNELS, MAX_FOREIGN_SCALE, SizeRule
from agsr.engines.foreign.hints import PEAKS, RGBA, Hints, Layout, Order
from agsr.engines.foreign.io_spec import IoSpec
from agsr.engines.foreign.trial import NoFitError, Run, Trial
from agsr.errors import HintsError, ModelError

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

UNLIKE = 0.05
"""Mean difference, as a share of the range, above which the output doesn't resemble the input.

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
        ModelError: The network does not make pictures of its input's size times a whole number, or
            its format can't be found.
        HintsError: A hint has no effect on this network.
    """
    lr, sr = _choose_tensors(session, hints, source)
    failure = "no layout has 1, 3 or 4 channels"
    for spec in _guesses(lr, sr, hints):
        trial = Trial(run, spec.probed)
        try:
            shaped = _with_output_layout(spec, trial, hints, source)
        except NoFitError as error:
            failure = str(error)
            continue
        _check_effect(hints, shaped, source)
        found = _with_range(shaped, trial, hints, source)
        _warn_of_colour(found, trial, source)
        return found
    raise ModelError(
        f"{source}: found no input format for its {_names([lr])}: {failure}; give hints for its "
        "layout, channels, and size, multiple, minimum or square"
    )


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


def _guesses(lr: Any, sr: Any, hints: Hints) -> Iterator[IoSpec]:
    """List the formats that declared shape and hints allow, likely first."""
    declared = [d if isinstance(d, int) and d > 0 else None for d in lr.shape or [None] * 4]
    multiples = [hints.multiple] if hints.multiple else list(SIZES)
    for multiple, (layout, channels, only) in product(multiples, _shapes(declared, hints)):
        if only and multiple != multiples[0]:
            continue  # already tried: a fixed size does not depend on the multiple
        rule = SizeRule(fixed=only) if only else _rule(hints, multiple)
        yield IoSpec(
            input=lr.name,
            output=sr.name,
            input_type=TYPES[lr.type],
            output_type=TYPES[sr.type],
            input_layout=layout,
            output_layout=layout,
            channels=channels,
            order=hints.order or "rgb",
            output_order=hints.output_order or hints.order or "rgb",
            batch=declared[0],
            rule=rule,
            input_peak=_peaks(TYPES[lr.type], hints.input_peak)[0],
            output_peak=_peaks(TYPES[sr.type], hints.output_peak)[0],
            probed=rule.padded(*(SIZES.get(multiple) or _multiples(multiple))),
        )


def _shapes(
    declared: list[int | None], hints: Hints
) -> list[tuple[Layout, int, tuple[int, int] | None]]:
    """List what a declared shape can mean: layout, channels and fixed size."""
    counts = [hints.channels] if hints.channels else [CHANNELS, 1, RGBA]
    layouts = [hints.layout] if hints.layout else get_args(Layout)
    certain, possible = [], []
    for channels, layout in product(counts, layouts):
        depth, height, width = _by_axis(declared, layout)
        if layout == "NHWC" and height is not None and depth is None and width is None:
            continue  # NCHW with another number of channels, not a picture of so many rows
        meaning = (layout, channels, hints.size or _only_size(height, width))
        if depth == channels:
            certain.append(meaning)
        elif depth is None:
            possible.append(meaning)
    return certain or possible


def _rule(hints: Hints, multiple: int) -> SizeRule:
    return SizeRule(minimum=hints.minimum or 1, multiple=multiple, square=hints.square)


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


def _with_output_layout(spec: IoSpec, trial: Trial, hints: Hints, source: str) -> IoSpec:
    """Set the layout in which the output is the input's size times a scale, and that scale."""
    shape, size = trial.output(spec).shape, spec.probed
    for layout in get_args(Layout):
        depth, height, width = _by_axis(shape, layout)
        scale = height // size[0]
        if not scale or (height, width) != (size[0] * scale, size[1] * scale):
            continue
        if depth not in {spec.channels, min(spec.channels, CHANNELS)}:
            continue
        if depth < spec.channels and hints.channels is None:
            raise ModelError(
                f"{source}: takes {spec.channels} channels and returns {depth}: the last one may "
                "be alpha, or a map of noise, which isn't supported; if it is alpha, give the hint "
                f"channels={spec.channels}"
            )
        if scale > MAX_FOREIGN_SCALE:
            raise ModelError(f"{source}: upscales by {scale}; expected 1 to {MAX_FOREIGN_SCALE}")
        return replace(spec, output_layout=layout, scale=scale)
    raise NoFitError(f"{size[1]}x{size[0]} pixels gave an output of {shape}")


def _check_effect(hints: Hints, spec: IoSpec, source: str) -> None:
    """Reject hints that contradict what the file declares.

    Raises:
        HintsError: There is one; the message names it and the reason.
    """
    if spec.size is not None:
        height, width = spec.size
        hints.check_no_size_rule(f"{source} accepts {width}x{height} pixels only")
    if spec.channels == 1 and (hints.order or hints.output_order):
        name = "order" if hints.order else "output_order"
        raise HintsError(f"hint {name} has no effect: {source} takes luma, not colours; remove it")
    for name, kind in (("input_peak", spec.input_type), ("output_peak", spec.output_type)):
        if kind == "uint8" and getattr(hints, name) == 1:
            raise HintsError(f"hint {name}=1 has no effect: {source} has uint8 there; remove it")


def _with_range(spec: IoSpec, trial: Trial, hints: Hints, source: str) -> IoSpec:
    """Set the ranges, and the order of output colours, in which the output shows the input."""
    into = _peaks(spec.input_type, hints.input_peak)
    out = _peaks(spec.output_type, hints.output_peak)
    # Equal ranges are more common than different ones, and 1 more than 255.
    peaks = sorted(product(into, out), key=lambda pair: (pair[0] != pair[1], pair))
    guesses = [
        replace(spec, output_order=order, input_peak=first, output_peak=last)
        for order in _output_orders(spec, hints)
        for first, last in peaks
    ]
    found = [trial.difference(guess) for guess in guesses]
    least = min(found)
    if len(peaks) > 1 and least > UNLIKE:
        raise ModelError(
            f"{source}: its output doesn't resemble its input, whether white is 1 or 255; "
            "if that is intended, give the hints input_peak and output_peak"
        )
    if least > UNLIKE:
        return guesses[0]
    return next(guess for guess, far in zip(guesses, found, strict=True) if far <= least + EQUAL)


def _output_orders(spec: IoSpec, hints: Hints) -> tuple[Order, ...]:
    """Return the possible orders of colours in the output, the likely one first."""
    if hints.output_order or spec.channels == 1:
        return (spec.output_order,)
    return ("rgb", "bgr") if spec.order == "rgb" else ("bgr", "rgb")


def _warn_of_colour(spec: IoSpec, trial: Trial, source: str) -> None:
    """Log a warning if the output has other colours than the input, naming the hint that helps."""
    if spec.output_order != spec.order and spec.channels != 1:
        _log.warning(
            "%s: its output has red and blue exchanged, and is read as %s; the hint "
            "output_order=%s makes that certain, output_order=%s reads it as it is",
            *(source, spec.output_order, spec.output_order, spec.order),
        )
    before = trial.picture.mean(axis=(0, 2, 3))
    after = trial.decoded(spec).mean(axis=(0, 2, 3))
    if not np.abs(after - before).max() <= UNLIKE:  # also NaN
        _log.warning(
            "%s: makes other colours of a test picture: the mean of red, green and blue is %s, and "
            "its input's %s, of white 1; the hints input_peak=%d and output_peak=%d, or the order "
            "of colours, may be wrong",
            *(source, _format_colour(after), _format_colour(before)),
            *(spec.input_peak, spec.output_peak),
        )


def _format_colour(means: NDArray[Any]) -> str:
    return " ".join(f"{mean:.2f}" for mean in means)


def _peaks(kind: str, hint: int | None) -> tuple[int, ...]:
    """Return the possible values of white."""
    if kind == "uint8":
        return (255,)
    return (hint,) if hint else PEAKS


def _names(tensors: Any) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors)
