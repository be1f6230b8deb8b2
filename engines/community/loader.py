"""Load another project's weights: file → checked index → spandrel → a network and its properties.

spandrel (https://github.com/chaiNNer-org/spandrel) recognizes an architecture by the names and
shapes of its tensors. A file of this project never comes here, and `.pt` files, which are code, are
rejected by their ending (`agsr.pretrained`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.contract import CHANNELS, MAX_FOREIGN_SCALE, TILINGS, SizeRule, Tiling
from agsr.engines.community.tensor_index import read_index
from agsr.engines.network_facts import NetworkFacts, cache_facts
from agsr.errors import ModelError
from agsr.pretrained import require_file, sha256
from agsr.system.optional_import import require
from agsr.system.text import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

RGBA = 4
"""Channels of a network that reads alpha."""

_TILINGS: dict[str, Tiling] = {tiling.upper(): tiling for tiling in TILINGS}
"""Kinds of tiling by spandrel's names."""


@dataclass(frozen=True)
class CommunityNetwork:
    """A loaded network of another project, in evaluation mode, on the CPU, in float32."""

    facts: NetworkFacts
    """Its properties."""
    module: nn.Module
    """Its weights and layers."""
    call: Callable[[nn.Module, Tensor], Tensor]
    """Runs the module on ``(B, channels, H, W)`` in [0, 1]; the result is not clipped."""


def load_network(path: Path) -> CommunityNetwork:
    """Load a ``.pth`` or ``.safetensors`` file of another project.

    Raises:
        ModelError: The file is not such weights, is damaged, may run code, or holds a network of an
            unknown architecture or one that doesn't map an RGB picture to an RGB picture.
        MissingDependencyError: spandrel is not installed.
    """
    require_file(path)
    read_index(path)
    import_spandrel()
    import spandrel

    from agsr.engines.community.allocation import limited_allocation

    loader = spandrel.ModelLoader(device="cpu")
    try:
        with warnings.catch_warnings(), limited_allocation(path.stat().st_size, str(path)):
            warnings.simplefilter("ignore")  # of pixels that networks compute with, not of the file
            descriptor = loader.load_from_file(path)
    except ModelError:
        raise
    except spandrel.UnsupportedModelError:
        raise ModelError(
            f"{path}: its tensors are of no architecture that spandrel {spandrel.__version__} "
            "knows; expected a network that upscales or restores pictures. If it is newer than "
            "spandrel, use the project's .onnx file"
        ) from None
    except Exception as error:  # an architecture's code raises anything for unexpected shapes
        raise ModelError(f"{path}: can't be loaded: {first_line(error)}") from None
    network = _described(descriptor, path)
    cache_facts(path, network.facts)
    return network


def import_spandrel() -> None:
    """Import spandrel.

    Raises:
        MissingDependencyError: It is not installed.
        ModelError: It can't be imported, since torch and torchvision don't fit together.
    """
    purpose = "Running another project's .pth or .safetensors file"
    try:
        for module in ("torch", "torchvision", "safetensors", "spandrel"):
            require(module, extra="models", purpose=purpose)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"torchvision can't be imported: {first_line(error)}; install it for the installed "
            "torch, from the same index: pip install torch torchvision --index-url "
            "https://download.pytorch.org/whl/cpu"
        ) from None


def _described(descriptor: Any, path: Path) -> CommunityNetwork:
    """Return the network of a descriptor, if we can run it."""
    import spandrel

    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ModelError(f"{path}: {name} fills the gaps of a mask; expected a network of pictures")
    if descriptor.purpose == "FaceSR":
        raise ModelError(f"{path}: {name} restores cropped faces only, not whole pictures")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels not in ((CHANNELS, CHANNELS), (1, 1), (RGBA, RGBA)):
        raise ModelError(
            f"{path}: {name} maps {channels[0]} channels to {channels[1]}; expected {CHANNELS} "
            f"(RGB), 1 (grey) or {RGBA} (RGB with alpha) for both"
        )
    if not 1 <= descriptor.scale <= MAX_FOREIGN_SCALE:
        raise ModelError(
            f"{path}: {name} upscales by {descriptor.scale}; expected 1 to {MAX_FOREIGN_SCALE}"
        )
    descriptor.eval()
    module = descriptor.model.float().requires_grad_(False)
    return CommunityNetwork(_facts(descriptor, path), module, descriptor._call_fn)


def _facts(descriptor: Any, path: Path) -> NetworkFacts:
    rule = descriptor.size_requirements
    reduced = {"fp16": descriptor.supports_half, "bf16": descriptor.supports_bfloat16}
    return NetworkFacts(
        architecture=descriptor.architecture.name,
        tags=tuple(descriptor.tags),
        scale=descriptor.scale,
        channels=descriptor.input_channels,
        sizes=SizeRule(minimum=max(1, rule.minimum), multiple=rule.multiple_of, square=rule.square),
        tiling=_TILINGS[descriptor.tiling.name],
        precisions=("fp32", *(name for name, works in reduced.items() if works)),
        sha256=sha256(path),
    )
