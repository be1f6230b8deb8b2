"""Load another project's weights: file → checked index → spandrel → a network and its properties.

spandrel (https://github.com/chaiNNer-org/spandrel) recognizes an architecture by the names and
shapes of its tensors. A file of this project never comes here, and `.pt` files, which are code, are
rejected by their ending (`agsr.pretrained`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.contract import CHANNELS, MAX_FOREIGN_SCALE, TILINGS, SizeRule, Tiling
from agsr.engines.community.tensor_index import read_index
from agsr.errors import ModelError
from agsr.pretrained import require_file, sha256
from agsr.system.optional_import import require
from agsr.system.text import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

_TILINGS: dict[str, Tiling] = {tiling.upper(): tiling for tiling in TILINGS}
"""Kinds of tiling by spandrel's names."""

_SPARE_BYTES = 512 << 20
"""Bytes that a network may allocate beside a multiple of its file's size while it is built."""

_TIMES_FILE = 8
"""That multiple: a file of 2 bytes per value becomes 4, and some networks compute masks."""


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Properties of another project's network."""

    architecture: str
    """Name, as spandrel gives it: ``ESRGAN``, ``RealESRGAN Compact``, ``DAT``."""
    tags: tuple[str, ...]
    """Its size and variant: ``64nf``, ``23nb``."""
    scale: int
    """Output pixels per input pixel along each axis; 1 for networks that restore."""
    channels: int
    """3 for RGB, 1 for luma."""
    sizes: SizeRule
    """Sizes that it accepts."""
    tiling: Tiling
    """Whether pictures may be cut."""
    precisions: tuple[str, ...]
    """Arithmetic that its architecture supports: fp32, and fp16 or bf16."""
    sha256: str
    """SHA-256 of the file."""


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

    loader = spandrel.ModelLoader(device="cpu")
    try:
        with warnings.catch_warnings(), limited_allocation(path):
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
    return _described(descriptor, path)


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


@contextmanager
def limited_allocation(path: Path) -> Iterator[None]:
    """Limit what torch allocates meanwhile to a multiple of a file's size.

    An architecture computes its layers' sizes from the shapes in the file; one large number among
    them could ask for any amount of memory.

    Raises:
        ModelError: More is asked for; it is not allocated.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    left = path.stat().st_size * _TIMES_FILE + _SPARE_BYTES

    class Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal left
            del types
            if args and isinstance(args[0], (list, tuple)) and _is_shape(args[0]):
                left -= 4 * math.prod(args[0])
                if left < 0:
                    raise ModelError(
                        f"{path}: its shapes ask for more than {_TIMES_FILE} times the memory of "
                        "the file; rejected as damaged"
                    )
            return func(*args, **(kwargs or {}))

    with Limit():  # type: ignore[no-untyped-call]
        yield


def _is_shape(value: Any) -> bool:
    return all(isinstance(side, int) for side in value)


def _described(descriptor: Any, path: Path) -> CommunityNetwork:
    """Return the network of a descriptor, if we can run it."""
    import spandrel

    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ModelError(f"{path}: {name} fills the gaps of a mask; expected a network of pictures")
    if descriptor.purpose == "FaceSR":
        raise ModelError(f"{path}: {name} restores cropped faces only, not whole pictures")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels not in ((CHANNELS, CHANNELS), (1, 1)):
        raise ModelError(
            f"{path}: {name} maps {channels[0]} channels to {channels[1]}; expected {CHANNELS} "
            "(RGB) or 1 (grey) for both. Alpha is upscaled apart from colour, by the same network"
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
