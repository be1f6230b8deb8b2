"""Shapes of networks: dataclasses that weights files store as JSON, without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

GENERATOR = "agsr"
"""Name of the attentive generator in weights files and in ``agsr train --model``."""

GREY = 0.5
"""Subtracted from the generator's input, so that zero padding is mid-grey; also the first map
``A_0``."""

LEAK = 0.1
"""Negative slope inside the dense blocks, so that units stay trainable at high learning rates."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """Positive integers that define a network's shape; kernel sizes are odd."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for field, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{kind}.{field} is {value!r}; expected an integer ≥ 1")
            if "kernel" in field and value % 2 == 0:
                raise ValueError(f"{kind}.{field} is {value}; expected odd")

    @property
    def layers(self) -> int:
        """Number of layers that the counts in this configuration ask for, each with weights."""
        return 1

    def check_layers(self, tensors: int) -> None:
        """Check, before anything of that size is made, that a file has weights for each layer.

        Args:
            tensors: Number of tensors in the file.

        Raises:
            ValueError: It has fewer.
        """
        if self.layers > tensors:
            raise ValueError(f"{self.layers} layers, but {tensors} tensors of weights")

    @abstractmethod
    def receptive_radius(self, steps: int) -> int:
        """Return the number of LR pixels to each side that influence an output pixel.

        A halo this wide around a tile makes the tiled result equal to the untiled one.

        Args:
            steps: Time steps.
        """


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(NetworkConfig):
    """Shape of the generator, which is independent of the step count.

    >>> GeneratorConfig().receptive_radius(steps=4)
    39
    """

    width: int = 64
    """Feature channels."""
    growth: int = 32
    """Channels each dense layer adds."""
    dense_layers: int = 2
    """3x3 convolutions per residual dense block."""
    dense_blocks: int = 3
    """Residual dense blocks per time step (the paper's three)."""
    gru_kernel: int = 1
    """Kernel size of the GRU's convolutions."""
    mapping_width: int = 32
    """Inner channels of the mapping network's convolution pairs."""
    mapping_pairs: int = 4
    """Convolution pairs of the mapping network (four pairs are the paper's eight convolutions)."""

    @property
    def layers(self) -> int:
        """See `NetworkConfig.layers`."""
        return self.dense_blocks * (self.dense_layers + 1) + 2 * self.mapping_pairs

    def receptive_radius(self, steps: int) -> int:
        """Return the number of LR pixels to each side that influence an output pixel."""
        shallow = 2
        step = self.dense_blocks * self.dense_layers + 2 * (self.gru_kernel // 2)
        attend = 1
        # A step's map and hidden state both enter the next step, so the map's 3x3 accumulates.
        return shallow + steps * (step + attend) + 2 * self.mapping_pairs + 1
