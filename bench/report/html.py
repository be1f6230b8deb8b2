"""Renders a result as one self-contained HTML file, by ``report.html.j2``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agsr.bench.report.crops import (
    Crop,
    CropCollector,
    Scene,
    attention_maps,
    close_ups,
    data_uri,
    to_grey_images,
)
from agsr.bench.report.plot import inline_svg, points
from agsr.bench.report.tables import failures, tables, warnings
from agsr.bench.runner.results import BenchResult
from agsr.contract import DEFAULT_STEPS
from agsr.pretrained import shipped_names
from agsr.system.optional_import import install_command, require

TEMPLATE = "report.html.j2"
"""Jinja template beside this file."""

MAX_MAPS = 2
"""Number of images whose attention maps are shown."""


@dataclass(frozen=True)
class Figure:
    """An image and its caption."""

    title: str
    uri: str

    @classmethod
    def of(cls, crop: Crop, kind: str) -> Figure:
        """Make a figure of a crop, in a format of `data_uri`."""
        return cls(crop.label, data_uri(crop.pixels, kind))


@dataclass(frozen=True)
class Comparison:
    """A scene for the slider, with its methods and close-ups."""

    image: str
    where: str
    width: int
    height: int
    methods: tuple[Figure, ...]
    close_ups: tuple[Figure, ...]


def to_html(result: BenchResult, crops: CropCollector) -> str:
    """Render the report.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    require("jinja2", extra="bench", purpose="The HTML report")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        result=result,
        plot=Markup(inline_svg(result)) if points(result) else "",  # trusted: our SVG
        tables=tables(result),
        failures=failures(result),
        warnings=warnings(result),
        maps_need="" if _can_show_maps() else install_command("train"),
        comparisons=list(map(_comparison, crops.scenes)),
        attention=_attention(result, crops),
    )


def _comparison(scene: Scene) -> Comparison:
    height, width = scene.box.height, scene.box.width
    return Comparison(
        image=scene.title,
        where=f"{width}x{height} at {scene.box.left}, {scene.box.top}",
        width=width,
        height=height,
        methods=tuple(Figure.of(crop, "webp") for crop in scene.crops),
        close_ups=tuple(Figure.of(crop, "png") for crop in close_ups(scene)),
    )


def _attention(result: BenchResult, crops: CropCollector) -> list[list[Figure]]:
    """Make one row of figures per image: the input, then its maps by step."""
    ran = {row.entry.weights for row in result.rows if row.quality}
    weights = next((name for name in shipped_names() if name in ran), None)
    if weights is None or not _can_show_maps():
        return []
    colour = [scene for scene in crops.scenes if scene.lr.ndim == 3]
    return [_maps(scene, weights) for scene in colour[:MAX_MAPS]]


def _can_show_maps() -> bool:
    return find_spec("torch") is not None


def _maps(scene: Scene, weights: str) -> list[Figure]:
    maps = attention_maps(weights, scene.lr, DEFAULT_STEPS)
    names = (f"A{n}: {plane.min():.2f} to {plane.max():.2f}" for n, plane in enumerate(maps, 1))
    greys = [
        Figure(n, data_uri(x, "png")) for n, x in zip(names, to_grey_images(maps), strict=True)
    ]
    return [Figure(f"{scene.title}, input", data_uri(scene.lr, "png")), *greys]
