"""What the network sees beyond the border: the picture mirrored, its far side, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repeat
from numpy.typing import NDArray

from agsr.cli import main
from agsr.cli.infer import infer
from agsr.engines.upscaler import Upscaler
from agsr.image.ops.output_size import OutputSize
from agsr.image.ops.padding import BORDERS, Border, extended
from agsr.image.picture import Picture


@pytest.fixture
def texture() -> NDArray[np.uint8]:
    """``(24, 40, 3)`` colours whose far sides fit together."""
    y, x = np.mgrid[:24, :40]
    waves = [np.sin(2 * np.pi * (a * y / 24 + b * x / 40)) for a, b in ((2, 3), (1, -5), (4, 1))]
    return np.uint8(127.5 + 120 * np.stack(waves, axis=2))


def test_beyond_the_border_is_the_mirrored_picture_or_its_far_side() -> None:
    row = Picture(np.arange(3, dtype=np.uint8)[None], np.uint8([[7, 8, 9]]))
    mirrored, wrapped = extended(row, "mirror", 4), extended(row, "wrap", 4)
    assert mirrored.pixels[0].tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert wrapped.pixels[8].tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert wrapped.alpha is not None
    assert wrapped.alpha[0].tolist() == [9, 7, 8, 9, 7, 8, 9, 7, 8, 9, 7]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("tile", [0, 1, 5])
@pytest.mark.parametrize("shape", [(13, 17, 3), (13, 17), (1, 1, 3)])
def test_only_the_picture_itself_is_in_the_result(
    border: Border, tile: int, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    result = Upscaler(backend=Repeat(), tile=tile, halo=3, border=border)(image)
    assert np.array_equal(result, image.repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize("scale", [4, 2, 1.25, 0.5])
@pytest.mark.parametrize("tile", [0, 20])
def test_a_texture_that_tiles_still_does(
    texture: NDArray[np.uint8], scale: float, tile: int
) -> None:
    """Its result is that of the middle of nine, to a level."""
    sizing = OutputSize(scale=scale)
    options = {"backend": "ort", "steps": 1, "tile": tile, "halo": "exact"}
    with Upscaler("psnr", border="wrap", **options) as upscaler:
        single = upscaler.picture(Picture(texture), sizing=sizing).pixels
        nine = Picture(np.tile(texture, (3, 3, 1)))
        backend = upscaler._backend
        many = Upscaler(backend=backend).picture(nine, sizing=sizing).pixels
        alone = Upscaler(backend=backend).picture(Picture(texture), sizing=sizing).pixels
    height, width = single.shape[:2]
    middle = many[height : 2 * height, width : 2 * width].astype(int)
    assert np.abs(single - middle).max() <= 1
    assert np.abs(alone - middle).max() > 3  # what the option is for


def test_alpha_tiles_too(texture: NDArray[np.uint8]) -> None:
    with Upscaler("psnr", backend="ort", steps=1, border="wrap") as upscaler:
        single = upscaler.picture(Picture(texture, texture[..., 0])).alpha
        nine = np.tile(texture, (3, 3, 1))
        many = upscaler.picture(Picture(nine, nine[..., 0])).alpha
    assert single is not None
    assert many is not None
    assert np.abs(single.astype(int) - many[96:192, 160:320]).max() <= 1


@pytest.mark.parametrize("scale", [4, 2.5])
def test_flat_colours_stay_flat_up_to_the_border(scale: float) -> None:
    flat = Picture(np.full((32, 32, 3), (255, 0, 255), np.uint8))
    with Upscaler("psnr", backend="ort", border="mirror") as upscaler:
        result = upscaler.picture(flat, sizing=OutputSize(scale=scale)).pixels
    assert np.abs(result - flat.pixels[0, 0].astype(int)).max() <= 2


def test_no_more_is_read_than_the_network_sees() -> None:
    backend = Repeat()
    Upscaler(backend=backend, halo=500, border="mirror")(np.zeros((9, 9, 3), np.uint8))
    assert backend.info.receptive_radius == 3
    assert backend.shapes == [(1, 3, 15, 15)]


def test_other_borders_are_rejected() -> None:
    with pytest.raises(ValueError, match="border is 'zero'; expected None or one of"):
        Upscaler(backend=Repeat(), border="zero")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="needs a halo"):
        Upscaler(backend=Repeat(), border="wrap", halo=0)


def test_the_command_line_has_the_same_borders(
    tmp_path: Path, texture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    option = next(p for p in infer.params if p.name == "border")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == BORDERS == get_args(Border)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(texture).save("wall.png")
    usual = CliRunner().invoke(main, ["infer", "wall.png", "-s", "1", "-o", "usual.png"])
    wrapped = CliRunner().invoke(
        main, ["infer", "wall.png", "-s", "1", "-o", "wrapped.png", "--border", "wrap"]
    )
    assert (usual.exit_code, wrapped.exit_code) == (0, 0)
    plain, seamless = (
        np.asarray(Image.open(name)).astype(int) for name in ("usual.png", "wrapped.png")
    )
    assert plain.shape == seamless.shape == (96, 160, 3)
    assert np.abs(plain - seamless)[:4].max() > 3
    without = CliRunner().invoke(main, ["infer", "wall.png", "--border", "wrap", "--halo", "0"])
    assert without.exit_code == 2
    assert "--border has no effect" in without.stderr
