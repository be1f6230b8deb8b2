"""Backend for other projects' weights on torch: ``.pth`` and ``.safetensors`` files."""

from __future__ import annotations

import logging
import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agsr.backend import BackendInfo
from agsr.engines.community.licences import note_licence
from agsr.engines.community.loader import CommunityNetwork, import_spandrel, load_network
from agsr.engines.community.trust import fault, next_precision, probe_tile
from agsr.engines.network_facts import NetworkFacts
from agsr.engines.runtimes.torch_module import (
    TorchModule,
    check_precision,
    device_errors,
    find_device,
    one_thread_if_forked,
    warn_if_emulated,
)
from agsr.errors import BackendError, BackendRequestError

if TYPE_CHECKING:
    from torch import Tensor


_log = logging.getLogger(__name__)


class CommunityBackend(TorchModule):
    """Runs another project's network.

    >>> from agsr import Upscaler
    >>> upscaler = Upscaler("4x-UltraSharp.pth")  # doctest: +SKIP

    Architecture, scale, channels and accepted sizes are found by spandrel.

    Args:
        path: ``.pth`` or ``.safetensors`` file.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: ``"fp32"``; or ``"fp16"`` or ``"bf16"``, in which all of the network is computed,
            if its architecture supports that. It is compared with fp32 on one tile; where it gives
            NaN, black or large differences, the next precision is used, with a warning.

    Raises:
        ModelError: The file is not such a network.
        BackendRequestError: torch knows no such device or precision, or the architecture doesn't
            support the precision.
        BackendError: The device does not exist here.
        MissingDependencyError: spandrel is not installed.
    """

    facts: NetworkFacts
    """Properties of the network."""

    def __init__(self, path: Path, *, device: str = "cpu", precision: str = "fp32") -> None:
        check_precision(precision, str(path))
        import_spandrel()
        one_thread_if_forked()
        network = load_network(path)
        self.facts = network.facts
        self.sizes = self.facts.sizes
        check_supported(self.facts, precision, str(path))
        note_licence(self.facts.sha256, str(path))
        self._device = find_device(device)
        warn_if_emulated(self._device, precision)
        precision = self._place_trusted(network, precision, path)
        self.tile_align = self.sizes.tile_align
        self.info = BackendInfo(
            name="torch",
            device=str(self._device),
            precision=precision,
            steps=None,
            receptive_radius=None,
            model=str(path),
            weights_hash=self.facts.sha256,
            scale=self.facts.scale,
            architecture=self.facts.architecture,
            tiling=self.facts.tiling,
        )

    @cached_property
    def bytes_per_pixel(self) -> int:  # type: ignore[override]  # measured when it is first asked for
        """Bytes of working memory per LR pixel, measured on a small picture."""
        from agsr.engines.community.working_memory import bytes_per_pixel

        return bytes_per_pixel(self._network, self.sizes, self._device)

    def _place_trusted(self, network: CommunityNetwork, precision: str, path: Path) -> str:
        """Put the network on the device, in the precision or the next one that it works in."""
        self._place_network(network, "fp32")
        if precision == "fp32":
            return precision
        tile = probe_tile(self.sizes)
        expected = self._run(tile)
        self._place_network(network, precision)
        try:
            problem = fault(self._run(tile), expected)
        except BackendError as error:  # some architectures mix types, whatever they claim
            problem = f"fails: {error}"
        if not problem:
            return precision
        better = next_precision(precision, self.facts.precisions)
        _log.warning("%s: %s %s; running in %s instead", path, precision, problem, better)
        return self._place_trusted(load_network(path), better, path)

    def _place_network(self, network: CommunityNetwork, precision: str) -> None:
        from agsr.engines.community.picture_network import PictureNetwork
        from agsr.model.base import place

        with device_errors(str(self._device)):
            self._network = place(PictureNetwork(network, precision), self._device)

    def _network_output(self, lr: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about how the network computes
            return cast("Tensor", self._network(lr))


def check_supported(facts: NetworkFacts, precision: str, source: str) -> None:
    """Reject a precision that an architecture doesn't support.

    Raises:
        BackendRequestError: It doesn't.
    """
    if precision not in facts.precisions:
        raise BackendRequestError(
            f"{source}: {facts.architecture} doesn't support {precision}; it runs in "
            f"{' or '.join(facts.precisions)}"
        )
