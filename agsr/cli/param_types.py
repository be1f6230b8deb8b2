"""Types of parameters that several commands share, in the sense of click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agsr.errors import RequestError
from agsr.image.ops.output_size import LARGEST_SIDE
from agsr.store.address import to_location


class LocationType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A local path, or an address like ``s3://bucket/folder/``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path` or an `Address`."""
        if not isinstance(value, str):
            return value
        try:
            return to_location(value)
        except RequestError as error:
            self.fail(str(error), param, ctx)


FileLocation = LocationType()
FilePath = click.Path(path_type=Path, readable=False)  # or one file would stop all others


class AliasChoice(click.Choice):  # type: ignore[type-arg]  # not generic before click 8.2
    """A choice in which some words have other names.

    Args:
        choices: The words.
        aliases: Other names, in lower case, with the words they mean.
    """

    def __init__(self, choices: Sequence[str], aliases: Mapping[str, str]) -> None:
        super().__init__(choices)
        self._aliases = aliases

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word in lower case; a leading dot is ignored."""
        word = str(value).lower().removeprefix(".")
        return super().convert(self._aliases.get(word, word), param, ctx)


class SizeOrWord(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A number of pixels from 0, or a word."""

    def __init__(self, *words: str) -> None:
        self.name = f"{'|'.join(words)}|PIXELS"
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A word as it is, digits as a number."""
        if value in self.words or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) > LARGEST_SIDE:
            self.fail(
                f"{value!r} is neither {' nor '.join(map(repr, self.words))} nor a number of "
                f"pixels up to {LARGEST_SIDE}",
                param,
                ctx,
            )
        return int(value)


class CommaList(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """Words or numbers with commas between them."""

    def __init__(self, name: str, item: click.ParamType[Any] = click.STRING) -> None:
        self.name, self._item = name, item

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Each part as the item's type has it."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not parts:
            self.fail("empty; expected at least one", param, ctx)
        return tuple(dict.fromkeys(self._item.convert(part, param, ctx) for part in parts))


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """``WIDTHxHEIGHT`` in pixels, the order of every option."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``(width, height)``."""
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT, like 1920x1080", param, ctx)
        return int(width), int(height)


class SizeList(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """Sizes like ``320x180``, or the word ``set``, separated by commas."""

    name = "WxH|set,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Every part as ``(height, width)`` or ``"set"``."""
        parts = (part.strip() for part in str(value).split(","))
        return tuple(dict.fromkeys(self._size(part, param, ctx) for part in parts))

    def _size(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if text == "set":
            return text
        try:
            width, height = Size().convert(text, param, ctx)
        except click.BadParameter:
            self.fail(f"{text!r} is neither WIDTHxHEIGHT nor 'set'", param, ctx)
        return height, width
