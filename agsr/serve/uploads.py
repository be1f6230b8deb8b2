"""From a request's body to a file in the spool: raw or multipart, within limits of size and time.

`limited` wraps what the framework reads, so that no route can forget the limits.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from agsr.engines.batch.headers import stored_size
from agsr.image.decode import READABLE
from agsr.serve.options import MEDIA_TYPES, clean_name, suffix_of
from agsr.serve.problems import Problem
from agsr.serve.settings import ServeSettings
from agsr.system.text import counted
from agsr.video.formats import HEAD, is_video, video_ending

_SUFFIXES = {kind: suffix for suffix, kind in MEDIA_TYPES.items()} | {
    "image/gif": ".gif",
    "image/heic": ".heic",
    "image/vnd-ms.dds": ".dds",
    "image/x-targa": ".tga",
    "video/x-msvideo": ".avi",
    "video/mp2t": ".ts",
    "video/mpeg": ".mpg",
}
"""Endings by the media type of an upload without a name."""

_MOST_FIELDS = 32
_LONGEST_FIELD = 4096


@dataclass(frozen=True)
class Upload:
    """A file that arrived."""

    path: Path
    name: str
    """As the client gave it, without folders; may be empty."""
    fields: Sequence[tuple[str, str]] = ()
    """Other fields of the form."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video by its name, media type or first bytes."""
        return is_video(self.path.suffix)


def declared_length(scope: Scope) -> int | None:
    """Return the length of a body that its header gives, if any."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def limited(scope: Scope, receive: Receive, settings: ServeSettings) -> Receive:
    """Return a function that receives a body within the limits of size and time.

    The function raises a `Problem` when the body is longer than allowed or too slow.
    """
    received, done = 0, False
    began = time.monotonic()
    check_length(declared_length(scope), settings)

    async def receive_limited() -> Message:
        nonlocal received, done
        if done:
            return await receive()  # waits until the client goes away
        allowed = settings.body_grace + received / settings.body_rate
        left = began + allowed - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.001))
        except asyncio.TimeoutError:
            raise Problem(
                408, "too_slow", f"only {counted(received, 'byte')} arrived in {allowed:.0f} s"
            ) from None
        received += len(message.get("body", b""))
        check_length(received, settings)
        done = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_limited


def check_length(length: int | None, settings: ServeSettings) -> None:
    """Check the length of a body.

    Raises:
        Problem: It is longer than allowed.
    """
    if length is not None and length > settings.max_bytes:
        raise Problem(
            413,
            "too_large",
            f"the upload has {length} bytes or more; at most {settings.max_bytes} are accepted",
        )


async def receive_upload(request: Request, folder: Path, name: str) -> Upload:
    """Write a request's file into a folder.

    Args:
        request: With the file as its body, or in a form.
        folder: Of the job.
        name: File name that the query gives; may be empty.

    Raises:
        Problem: There is no file, or a limit is exceeded.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _from_form(request, folder, name)
    else:
        path = folder / f"in{suffix_of(name) or _SUFFIXES.get(kind, '')}"
        with path.open("xb") as file:
            async for chunk in request.stream():
                file.write(chunk)
        upload = Upload(_named_like_a_video(path), name)
    if not upload.path.stat().st_size:
        raise Problem(400, "no_file", "the upload is empty; expected an image file as the body")
    return upload


async def _from_form(request: Request, folder: Path, name: str) -> Upload:
    limits = {"max_files": 1, "max_fields": _MOST_FIELDS, "max_part_size": _LONGEST_FIELD}
    async with request.form(**limits) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Problem(400, "no_file", f"the form has {len(files)} files; expected one")
        (file,) = files
        shown = name or clean_name(file.filename or "")
        kind = (file.content_type or "").partition(";")[0].strip().lower()
        path = folder / f"in{suffix_of(shown) or _SUFFIXES.get(kind, '')}"
        with path.open("xb") as target:
            await asyncio.to_thread(shutil.copyfileobj, file.file, target)
        fields = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
    return Upload(_named_like_a_video(path), shown, fields)


def _named_like_a_video(path: Path) -> Path:
    """Give a video without a known ending that of its container; return the path."""
    if is_video(path.suffix) or path.suffix in READABLE:
        return path
    with path.open("rb") as file:
        ending = video_ending(file.read(HEAD))
    return path if ending is None else path.rename(path.with_suffix(ending))


async def size_by_header(upload: Upload, settings: ServeSettings) -> tuple[int, int] | None:
    """Return height and width of an upload by its header; None if only decoding shows them.

    Raises:
        Problem: It has more pixels than allowed.
    """
    if upload.is_video:
        return None
    found = await asyncio.to_thread(stored_size, upload.path)
    if found is None:
        return None
    width, height = found
    if width * height > settings.max_pixels:
        raise Problem(
            413,
            "too_large",
            f"the picture has {width}x{height} pixels; at most {settings.max_pixels} are accepted",
        )
    return height, width
