"""A benchmark's result as one HTML file that holds all it shows and fetches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agsr.bench.report.crops import Gallery, Part, Scene, as_greys, attention_maps, closer, data_uri
from agsr.bench.report.plot import inline_svg, points
from agsr.bench.report.tables import failures, tables, warnings
from agsr.bench.runner.results import BenchResult
from agsr.contract import DEFAULT_STEPS
from agsr.pretrained import shipped_names
from agsr.system.optional_import import install_command, require

TEMPLATE = "report.html.j2"
"""Beside this file."""

MOST_MAPS = 2
"""Images whose attention maps are shown."""


@dataclass(frozen=True)
class Figure:
    """An image and what stands under it."""

    title: str
    uri: str

    @classmethod
    def of(cls, part: Part, kind: str) -> Figure:
        """A part of a scene, as a file of a kind that `data_uri` knows."""
        return cls(part.label, data_uri(part.pixels, kind))


@dataclass(frozen=True)
class Comparison:
    """A scene for the slider, its methods, and the same closer."""

    image: str
    where: str
    width: int
    height: int
    methods: tuple[Figure, ...]
    closer: tuple[Figure, ...]


def to_html(result: BenchResult, gallery: Gallery) -> str:
    """The report.

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
        plot=Markup(inline_svg(result)) if points(result) else "",  # our own SVG
        tables=tables(result),
        failures=failures(result),
        warnings=warnings(result),
        maps_need="" if _can_show_maps() else install_command("train"),
        comparisons=list(map(_comparison, gallery.scenes)),
        attention=_attention(result, gallery),
    )


def _comparison(scene: Scene) -> Comparison:
    height, width = scene.box.height, scene.box.width
    return Comparison(
        image=scene.title,
        where=f"{width}x{height} at {scene.box.left}, {scene.box.top}",
        width=width,
        height=height,
        methods=tuple(Figure.of(part, "webp") for part in scene.parts),
        closer=tuple(Figure.of(part, "png") for part in closer(scene)),
    )


def _attention(result: BenchResult, gallery: Gallery) -> list[list[Figure]]:
    """A row of pictures per image: the input, then its maps step by step."""
    ran = {row.contender.weights for row in result.rows if row.quality}
    weights = next((name for name in shipped_names() if name in ran), None)
    if weights is None or not _can_show_maps():
        return []
    colour = [scene for scene in gallery.scenes if scene.lr.ndim == 3]
    return [_maps(scene, weights) for scene in colour[:MOST_MAPS]]


def _can_show_maps() -> bool:
    return find_spec("torch") is not None


def _maps(scene: Scene, weights: str) -> list[Figure]:
    maps = attention_maps(weights, scene.lr, DEFAULT_STEPS)
    names = (f"A{n}: {plane.min():.2f} to {plane.max():.2f}" for n, plane in enumerate(maps, 1))
    greys = [Figure(n, data_uri(x, "png")) for n, x in zip(names, as_greys(maps), strict=True)]
    return [Figure(f"{scene.title}, input", data_uri(scene.lr, "png")), *greys]
