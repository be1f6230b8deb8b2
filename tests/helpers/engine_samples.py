"""What the engine cache stores of an engine: its identity and the report of its build."""

from __future__ import annotations

from agsr.contract import ModelMetadata
from agsr.engines.tensorrt.engine_cache import EngineIdentity
from agsr.engines.tensorrt.options import BuildOptions, BuildReport

IDENTITY = EngineIdentity(
    onnx="00" * 32,
    options=BuildOptions(),
    flavour="tensorrt-rtx",
    version="1.7.1",
    gpu="GeForce RTX 4090",
    capability="8.9",
    driver="13.0",
)


REPORT = BuildReport(
    metadata=ModelMetadata(
        steps=4, precision="fp16", receptive_radius=39, config="{}", weights_hash="", version=""
    ),
    flavour="tensorrt-rtx",
    version="1.7.1",
    layers={"CONVOLUTION": {"HALF": 63}},
    size=9,
)
