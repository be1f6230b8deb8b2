"""Build a TensorRT engine from an ONNX file, and verify its precision.

TensorRT is strongly typed, so an FP16 engine needs an FP16 ONNX file (``agsr export --precision
fp16``). The parsed layers are checked before the build, and the built ones after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agsr.contract import CHANNELS, INPUT_NAME, OUTPUT_NAME, ModelMetadata, SizeRule
from agsr.engines.onnx_file.inspect import check_self_contained
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.options import BuildOptions, BuildReport, Profile
from agsr.engines.tensorrt.precision_check import (
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

VERSION = 3
"""Version of `configure`, part of an engine's identity in the cache. Raise it with any change."""

_TARGET = re.compile(r"sm\d+")


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
        trt: TensorRT to build with.
        onnx: Content of an ONNX file made by ``agsr export``.
        source: Its name, for messages.
        options: How to build.
        report: Called with the progress; may cancel the build.
        timing_cache: File of measured layer times, read and written; TensorRT only.

    Returns:
        The serialized engine and its description.

    Raises:
        BuildError: The file can't be parsed, its layers or the engine's don't have the precision
            that it declares, the options don't fit this TensorRT, or the build failed or was
            cancelled.
        ModelError: The file is not a model of this project.
    """
    check_self_contained(onnx, source)
    metadata = _metadata(onnx, source)
    profiles = tuple(accepted(profile, metadata.sizes) for profile in options.profiles)
    options = replace(options, profiles=profiles)
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
    """Read the metadata of an ONNX file without running it."""
    model = require("onnx", extra="rtx", purpose="Building an engine")
    try:
        parsed = model.load_model_from_string(onnx)
    except Exception as error:  # protobuf raises its own type, derived from Exception
        raise BuildError(f"{source}: not an ONNX file: {error}") from None
    properties = {entry.key: entry.value for entry in parsed.metadata_props}
    return ModelMetadata.from_properties(properties, source)


def accepted(profile: Profile, sizes: SizeRule) -> Profile:
    """Return a profile whose shapes a network accepts: larger ones where it doesn't.

    >>> accepted(Profile(), SizeRule(minimum=16, multiple=32)).best
    (1, 192, 320)
    """
    shapes = (profile.smallest, profile.best, profile.largest)
    return Profile(*((batch, *sizes.padded(height, width)) for batch, height, width in shapes))


def _parse(trt: TensorRt, network: Any, messages: Any, onnx: bytes, source: str) -> None:
    parser = trt.module.OnnxParser(network, messages)
    if not parser.parse(onnx):
        error = parser.get_error(0)
        where = f"node {error.node_name()} ({error.node_operator()}): " if error.node() >= 0 else ""
        raise BuildError(f"{source}: {trt.flavour} can't parse it: {where}{error.desc()}")
    names = (network.get_input(0).name, network.get_output(0).name)
    if names != (INPUT_NAME, OUTPUT_NAME):
        raise BuildError(
            f"{source}: its input and output are {names}; expected {(INPUT_NAME, OUTPUT_NAME)}"
        )


def configure(trt: TensorRt, builder: Any, options: BuildOptions, precision: str) -> Any:
    """Configure a builder.

    Args:
        trt: TensorRT to build with.
        builder: Its builder.
        options: How to build.
        precision: Precision of the file. For fp32, TF32 is turned off, which TensorRT allows by
            default. It stays on for int8, whose few float32 layers lose less by it than the others
            lose by int8; fp16 and bf16 graphs have no layers that could use it.

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
    """Convert a profile to TensorRT's."""
    shapes = [
        (batch, CHANNELS, height, width)
        for batch, height, width in (profile.smallest, profile.best, profile.largest)
    ]
    entry = builder.create_optimization_profile()
    entry.set_shape(INPUT_NAME, *shapes)
    return entry


def _set_compatibility(trt: TensorRt, config: Any, options: BuildOptions) -> None:
    """Set the flags for engines that run on later GPUs or versions; only TensorRT has them."""
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
    """Read a timing cache and use it."""
    if trt.flavour != "tensorrt":
        raise BuildRequestError(
            "--timing-cache is TensorRT's; TensorRT-RTX times nothing while building"
        )
    timings = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if not config.set_timing_cache(timings, ignore_mismatch=False):
        raise BuildError(f"{path}: the timing cache of another GPU or version; name another file")
    return timings


def _set_targets(trt: TensorRt, config: Any, targets: Sequence[str]) -> None:
    """Set the GPU generations to build for; none means the current GPU's.

    TensorRT-RTX's own default is every generation from Ampere on: a larger engine, which does not
    run on Turing.
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
