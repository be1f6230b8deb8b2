"""ONNX → TensorRT engine: profiles, targets, progress, and proof of the precision.

TensorRT is strongly typed, so an FP16 engine comes from an FP16 ONNX file (``agsr export
--precision fp16``). What was parsed is checked before anything is built, and what was built after.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME, ModelMetadata
from agsr.engines.onnx_file.inspect import check_self_contained
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.precision_check import (
    PRODUCTS,
    built_products,
    check_built,
    check_parsed,
    parsed_layers,
)
from agsr.engines.tensorrt.progress import Report, progress_monitor
from agsr.engines.tensorrt.signed_int8 import as_signed
from agsr.errors import BuildError, BuildRequestError
from agsr.system.atomic_file import complete_file
from agsr.system.optional_import import require

VERSION = 2
"""How engines are configured; part of their identity in the cache. Raise it with any change."""

_TARGET = re.compile(r"sm\d+")


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine accepts, and the one it is made fastest for.

    Each is ``(batch, height, width)`` in LR pixels.
    """

    smallest: tuple[int, int, int] = (1, 16, 16)
    best: tuple[int, int, int] = (1, 180, 320)
    largest: tuple[int, int, int] = (1, 540, 960)

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.smallest, self.best, self.largest, strict=True):
            if not 1 <= low <= middle <= high:
                raise BuildRequestError(f"{self}: expected min ≤ opt ≤ max, from 1")

    def __str__(self) -> str:
        return " ≤ ".join("x".join(map(str, s)) for s in (self.smallest, self.best, self.largest))

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether a ``(batch, height, width)`` lies inside."""
        limits = zip(self.smallest, shape, self.largest, strict=True)
        return all(low <= value <= high for low, value, high in limits)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine is built. All of it is part of the engine's identity in the cache."""

    profiles: tuple[Profile, ...] = (Profile(),)
    """Optimization profiles, at least one."""
    workspace: int | None = None
    """Bytes that layers may use as scratch memory; None leaves it to TensorRT."""
    level: int | None = None
    """Builder optimization level, 0 (fast build) to 5 (fast engine); None leaves it to TensorRT."""
    version_compatible: bool = False
    """Whether later versions of TensorRT can run the engine; TensorRT only. Such an engine contains
    host code."""
    hardware_compatible: bool = False
    """Whether later generations of GPU can run the engine; TensorRT only."""
    targets: tuple[str, ...] = ()
    """GPU generations like ``"sm89"``; TensorRT-RTX only. Empty means the current GPU."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What was built."""

    metadata: ModelMetadata
    """What the ONNX file says about itself."""
    flavour: str
    """``"tensorrt"`` or ``"tensorrt-rtx"``."""
    version: str
    """Its version."""
    layers: dict[str, dict[str, int]]
    """Parsed layers: kind → type of its output → how often."""
    size: int
    """Bytes of the engine."""
    built: dict[str, int] = field(default_factory=dict)
    """Types of the engine's convolutions and how many there are of each, as it tells on the GPU it
    is for; empty if it was built for another, or doesn't tell."""
    options: BuildOptions = field(default_factory=BuildOptions)
    """How it was built."""
    tf32: bool = False
    """Whether float32 layers may multiply in TF32."""

    def products(self) -> dict[str, int]:
        """Types of the layers that multiply, and how many there are of each."""
        count: Counter[str] = Counter()
        for kind in PRODUCTS:
            count.update(self.layers.get(kind, {}))
        return dict(count)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def build_engine(
    trt: TensorRt,
    onnx: bytes,
    source: str,
    options: BuildOptions,
    report: Report | None = None,
    timing_cache: Path | None = None,
) -> tuple[bytes, BuildReport]:
    """Build an engine.

    Args:
        trt: Which TensorRT.
        onnx: Content of an ONNX file made by ``agsr export``.
        source: Its name, for messages.
        options: How to build.
        report: Told about the progress; may cancel.
        timing_cache: File of measured layer times, read and written; TensorRT only.

    Returns:
        The serialized engine and what is in it.

    Raises:
        BuildError: The file can't be parsed, its or the engine's layers don't have the precision
            it claims, the options don't fit this TensorRT, or the build failed or was cancelled.
        ModelError: The file is not a model of this project.
    """
    check_self_contained(onnx, source)
    metadata = _metadata(onnx, source)
    messages = trt.messages()
    started = messages.count
    builder = trt.module.Builder(messages)
    network = builder.create_network(0)
    _parse(trt, network, messages, as_signed(onnx, source), source)
    layers = parsed_layers(network)
    check_parsed(layers, metadata, source)
    config = configure(trt, builder, options, metadata.precision)
    monitor = progress_monitor(trt.module, report or (lambda *_: True))
    config.progress_monitor = monitor
    timings: Any = None if timing_cache is None else _timings(trt, config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        if monitor.cancelled:
            raise BuildError("the build was cancelled; nothing was written")
        raise BuildError(f"{source}: {trt.flavour} can't build it: {messages.reason(started)}")
    content = bytes(memoryview(engine))
    built: dict[str, int] = {}
    if not options.targets:
        built = built_products(trt, content, source, host_code=options.version_compatible)
    check_built(built, metadata, source)
    if timing_cache is not None:
        with complete_file(timing_cache) as temporary:
            temporary.write_bytes(bytes(memoryview(timings.serialize())))
    return content, BuildReport(
        metadata=metadata,
        flavour=trt.flavour,
        version=trt.version,
        layers=layers,
        size=len(content),
        built=built,
        options=options,
        tf32=config.get_flag(trt.module.BuilderFlag.TF32),
    )


def _metadata(onnx: bytes, source: str) -> ModelMetadata:
    """What the file says about itself, read without running it."""
    model = require("onnx", extra="rtx", purpose="Building an engine")
    try:
        parsed = model.load_model_from_string(onnx)
    except Exception as error:  # protobuf raises a type of its own, derived from Exception
        raise BuildError(f"{source}: not an ONNX file: {error}") from None
    properties = {entry.key: entry.value for entry in parsed.metadata_props}
    return ModelMetadata.from_properties(properties, source)


def _parse(trt: TensorRt, network: Any, messages: Any, onnx: bytes, source: str) -> None:
    parser = trt.module.OnnxParser(network, messages)
    if not parser.parse(onnx):
        error = parser.get_error(0)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node() >= 0 else ""
        raise BuildError(f"{source}: {trt.flavour} can't parse it: {where}{error.desc()}")
    ports = (network.get_input(0).name, network.get_output(0).name)
    if ports != (INPUT_NAME, OUTPUT_NAME):
        raise BuildError(f"{source}: its ports are {ports}; expected {(INPUT_NAME, OUTPUT_NAME)}")


def configure(trt: TensorRt, builder: Any, options: BuildOptions, precision: str) -> Any:
    """The builder's configuration.

    Args:
        trt: Which TensorRT.
        builder: Its builder.
        options: How to build.
        precision: Arithmetic of the file. fp32 is exact, so TF32, which TensorRT allows by default,
            is off. It stays on for int8, whose few float32 layers lose less by it than the others
            lose by int8; fp16 and bf16 have no layers that could use it.

    Raises:
        BuildError: The options don't fit this TensorRT.
    """
    module, config = trt.module, builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # for `built_products`
    if precision == "fp32":
        config.clear_flag(module.BuilderFlag.TF32)
    for profile in options.profiles:
        config.add_optimization_profile(_optimization_profile(builder, profile))
    if options.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace)
    if options.level is not None:
        config.builder_optimization_level = options.level
    _set_compatibility(trt, config, options)
    if trt.flavour == "tensorrt-rtx":
        _set_targets(trt, config, options.targets)
    elif options.targets:
        raise BuildRequestError(
            "--target is TensorRT-RTX's; TensorRT builds for the GPU it runs on"
        )
    return config


def _optimization_profile(builder: Any, profile: Profile) -> Any:
    """TensorRT's form of a profile."""
    shapes = [
        (batch, CHANNELS, height, width)
        for batch, height, width in (profile.smallest, profile.best, profile.largest)
    ]
    entry = builder.create_optimization_profile()
    entry.set_shape(INPUT_NAME, *shapes)
    return entry


def _set_compatibility(trt: TensorRt, config: Any, options: BuildOptions) -> None:
    """Flags for engines that outlive this GPU or version, which only TensorRT has."""
    module, asked = trt.module, ""
    if options.version_compatible:
        asked = "--version-compatible is TensorRT's; rebuild engines for each TensorRT-RTX"
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        asked = "--hardware-compatible is TensorRT's; TensorRT-RTX has --target"
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if asked and trt.flavour != "tensorrt":
        raise BuildRequestError(asked)


def _timings(trt: TensorRt, config: Any, path: Path) -> Any:
    """The timing cache of a file, in use."""
    if trt.flavour != "tensorrt":
        raise BuildRequestError(
            "--timing-cache is TensorRT's; TensorRT-RTX times nothing while building"
        )
    timings = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if not config.set_timing_cache(timings, ignore_mismatch=False):
        raise BuildError(f"{path}: the timing cache of another GPU or version; name another file")
    return timings


def _set_targets(trt: TensorRt, config: Any, targets: Sequence[str]) -> None:
    """Build for these GPUs, or for the current one.

    Without any, TensorRT-RTX would build for every generation from Ampere on: a larger engine,
    which does not run on Turing.
    """
    kinds = trt.module.ComputeCapability
    known = {n.lower(): getattr(kinds, n) for n in dir(kinds) if _TARGET.fullmatch(n.lower())}
    unknown = sorted(set(targets) - set(known))
    if unknown:
        raise BuildRequestError(f"no target {', '.join(unknown)}; known: {', '.join(known)}")
    chosen = [known[target] for target in targets] or [kinds.CURRENT]
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(capability, index)
