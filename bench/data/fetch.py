"""Test sets from their public homes: each file fetched once, checked by its SHA-256, cached.

Data flow: ``sources.json`` (repository, commit, folder and hashes) → pooch → the user's cache
folder, ``datasets/NAME/HR`` → `agsr.bench.data.sets`. A file appears under its name only when it is
the published one, so what broke off goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agsr.errors import DatasetError, UnknownSetError
from agsr.system.cache_dir import CACHE_VARIABLE, cache_folder
from agsr.system.optional_import import require
from agsr.system.progress import Progress, ProgressCallback

BASE_URL = "https://raw.githubusercontent.com"
"""Server of the public repositories."""

URL_VARIABLE = "AGSR_DATASETS_URL"
"""Environment variable that names a mirror of `BASE_URL`, with the same paths below it."""

ATTEMPTS = 3
"""How often a file is tried before giving up, with growing pauses."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The public home of a test set."""

    name: str
    """``Set5``."""
    repository: str
    """``owner/name`` on GitHub."""
    commit: str
    """The commit that was checked."""
    folder: str
    """Folder of the HR images in it."""
    files: Mapping[str, str]
    """File names, each with its SHA-256."""

    def url(self, base: str) -> str:
        """Address of the folder, with a slash at its end."""
        return f"{base.rstrip('/')}/{self.repository}/{self.commit}/{self.folder}/"


@cache
def sources() -> dict[str, Source]:
    """The sets that can be fetched, by name."""
    entries = json.loads((Path(__file__).parent / "sources.json").read_text(encoding="utf-8"))
    return {
        name: Source(
            name=name,
            repository=entry["repository"].removeprefix("github: "),
            commit=entry["commit"],
            folder=entry["folder"],
            files=entry["files"],
        )
        for name, entry in entries.items()
    }


def kept_set(name: str) -> Path | None:
    """The folder of a set that was fetched to its end, else None."""
    source = sources().get(name)
    if source is None:
        return None
    folder = _folder(name)
    return folder if not _missing(source, folder) else None


def fetch_set(
    name: str, *, base_url: str | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Fetch what is missing of a set into the user's cache folder.

    Args:
        name: A key of `sources`.
        base_url: A mirror of `BASE_URL`; None means ``$AGSR_DATASETS_URL``, or the public server.
        progress: Called after each file, and once before the first.

    Returns:
        The set's folder; its images are in ``HR``.

    Raises:
        DatasetError: The set is unknown, its server can't be reached, or what it sends is not what
            was published. What has arrived by then stays.
        MissingDependencyError: pooch is not installed.
    """
    source = sources().get(name)
    if source is None:
        raise UnknownSetError(f"no source of '{name}'; those that can be fetched: {_names()}")
    base = base_url or os.environ.get(URL_VARIABLE) or BASE_URL
    if not base.startswith(("http://", "https://")):
        raise DatasetError(f"{URL_VARIABLE} is '{base}'; expected an address like {BASE_URL}")
    folder = _folder(name)
    _download(source, source.url(base), folder / "HR", progress or (lambda _: None))
    return folder


def _download(source: Source, url: str, folder: Path, progress: ProgressCallback) -> None:
    pooch = require("pooch", extra="bench", purpose="Fetching test sets")
    registry = {file: f"sha256:{digest}" for file, digest in source.files.items()}
    store = pooch.Pooch(folder, url, registry=registry, retry_if_failed=ATTEMPTS - 1)
    total = len(source.files)
    progress(Progress(0, total))
    with _quiet(pooch.get_logger()):
        for done, file in enumerate(source.files, 1):
            try:
                store.fetch(file)
            except (OSError, ValueError) as error:
                raise DatasetError(_failure(source, url + file, folder, error)) from None
            progress(Progress(done, total))


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Report progress ourselves: a library's logger is quiet meanwhile."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _failure(source: Source, url: str, folder: Path, error: Exception) -> str:
    """What was tried, why it failed, what is there, and how to go on: one line."""
    there = len(source.files) - len(_missing(source, folder.parent))
    return (
        f"{source.name}: {url}: {_reason(error)}; {there} of {len(source.files)} files are in "
        f"{folder}. Go on with --fetch, name a mirror by {URL_VARIABLE}, or put the images into "
        f"DATA/{source.name}/HR by hand and name DATA with --data or AGSR_DATA"
    )


def _reason(error: Exception) -> str:
    """An error of pooch, requests or the disk in a few words."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import HTTPError, RequestException, Timeout

    if isinstance(error, HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, Timeout):
        return f"no answer, {ATTEMPTS} times"
    if isinstance(error, NoConnection):
        return f"no connection, {ATTEMPTS} times"
    if isinstance(error, RequestException):
        return f"broke off, {ATTEMPTS} times"
    if isinstance(error, OSError):
        return f"can't be cached: {error.strerror or error} ({CACHE_VARIABLE} names another folder)"
    return f"not the published file, its SHA-256 differs, {ATTEMPTS} times"


def _missing(source: Source, folder: Path) -> list[str]:
    return [file for file in source.files if not (folder / "HR" / file).is_file()]


def _folder(name: str) -> Path:
    return cache_folder() / "datasets" / name


def _names() -> str:
    return ", ".join(sources())
