"""What reads bytes from outside, as functions of bytes: `scripts/fuzz.py` and `test_fuzz` use it.

Of any input each must return or raise an `AgsrError` or `MemoryError`: anything else is a fault.
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from av.error import FFmpegError
from bench_results import image, peak, row, timing
from clips import Clip, make
from conftest import ROOT, tiny_checkpoint
from engine_samples import IDENTITY, REPORT
from foreign_graphs import clipping, repeating, with_weights_beside
from image_corpus import whole_files
from PIL import Image
from safetensors.numpy import save

from agsr.bench.report.comparison import compare_results
from agsr.bench.runner.measurements import SetScore
from agsr.bench.runner.results import BenchResult
from agsr.cli.output.bench import show_comparison
from agsr.cli.output.tables import show_engines
from agsr.contract import ModelMetadata
from agsr.engines.foreign.hints import Hints
from agsr.engines.onnx_file.inspect import read_content
from agsr.engines.tensorrt.engine_cache import EngineCache
from agsr.engines.tensorrt.engine_file import read_engine
from agsr.engines.tensorrt.engine_source import read_report
from agsr.engines.video.xmp import with_xmp
from agsr.errors import AgsrError
from agsr.image.decode import decode
from agsr.image.encode import FORMATS, encode
from agsr.image.formats.jpeg_end import completed
from agsr.image.formats.png_chunks import SIGNATURE, split_png
from agsr.image.formats.tiff_pages import open_tiff, stored_metadata_of_tiff
from agsr.image.metadata import resolve_metadata, usable_profile
from agsr.image.metadata.collect import apply_boxes
from agsr.image.metadata.colour import Colour, usable_chromaticities
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.exif_changes import (
    INCH,
    dpi_of,
    orientation_of,
    sized,
    upright,
    with_density,
    with_text,
)
from agsr.image.metadata.iptc import iptc_of, resource, resources
from agsr.image.metadata.stored import StoredMetadata, Text
from agsr.image.metadata.xmp import for_size, orientation, without_false
from agsr.model.checkpoint import load_checkpoint, save_checkpoint
from agsr.video.colour import ToRgb
from agsr.video.encoder import choose
from agsr.video.packet_survey import is_strongly_compressed, survey
from agsr.video.reader import open_video
from agsr.video.stream_copy import Plan
from agsr.video.trial import run_trial

STILLS = ROOT / "tests/stills"

MAX_PIXELS = 1 << 14
"""Of pictures: more would only take longer."""

EXPECTED = (AgsrError, MemoryError)
"""What any of these functions may raise."""

Target = Callable[[bytes], object]


def decoding(content: bytes) -> None:
    """Decode; what comes out must go into a file of one format, and be read again from there."""
    if zlib.crc32(content) % 2:
        content = with_checksums(content)
    picture = decode(content, "a.tga", MAX_PIXELS)  # Targa is known by its name alone
    suffix = list(FORMATS)[zlib.crc32(content) % len(FORMATS)]
    written = encode(picture, suffix, "a")
    if suffix in (".tif", ".tiff") and picture.pixels.ndim == 2 and picture.alpha is not None:
        return  # of 16 bits, it is written, but not read
    assert decode(written, f"a{suffix}").pixels.shape[:2] == picture.pixels.shape[:2]


def loading(content: bytes) -> None:
    """Read a file that holds no picture; the first byte says which kind of file it is."""
    if content:
        list(LOADERS.values())[content[0] % len(LOADERS)](content[1:])


def playing(content: bytes) -> None:
    """Read a whole video: its packets, properties, end and frames, and try what a result holds."""
    path = _file("a.video", content)
    seen = survey(path, MAX_PIXELS)
    with closing(open_video(path, "a", MAX_PIXELS)) as video:
        facts, form = video.properties, ("matroska", "mp4", "mov")[zlib.crc32(content) % 3]
        encoding, _ = choose(facts, (8, 8), "matroska", codec="ffv1")
        with suppress(ValueError, FFmpegError):  # as in `agsr.engines.video`
            run_trial(path, encoding, Plan(form=form), seen.first, MAX_PIXELS)
        with_xmp(Plan(form="mp4"), path, facts, encoding)
        is_strongly_compressed(seen, facts)
        to_rgb = ToRgb(facts, facts.alpha)
        for _, frame in islice(video.frames(), 3):
            to_rgb(frame)


def _clips() -> dict[str, bytes]:
    """Whole files of every container that is read."""
    found = {path.name: path.read_bytes() for path in (ROOT / "tests" / "videos").iterdir()}
    for ending, codec, form in CLIPS:
        audio = "mp3" if form in ("flv", "asf") else "mp2"
        clip = Clip(
            frames=4, codec=codec, audio=audio, options={} if codec == "ffv1" else {"bf": "0"}
        )
        path = make(_folder() / f"seed{ending}", clip, form)
        found[f"clip{ending}"] = path.read_bytes()
    return found


CLIPS = (
    (".mp4", "mpeg4", "mp4"),
    (".mkv", "ffv1", "matroska"),
    (".avi", "mpeg4", "avi"),
    (".ts", "mpeg2video", "mpegts"),
    (".mpg", "mpeg1video", "mpeg"),
    (".flv", "flv", "flv"),
    (".wmv", "wmv2", "asf"),
)
"""Ending, encoder and FFmpeg's name of containers."""


def _onnx(content: bytes) -> None:
    read_content(_file("a.onnx", content))


def _properties(content: bytes) -> None:
    lines = content.decode(errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    ModelMetadata.from_properties({name: value for name, _, value in pairs}, "a")


def _checkpoint(content: bytes) -> None:
    load_checkpoint(_file("a.safetensors", content)).build()


def _cache(content: bytes) -> None:
    """A sidecar in the cache; its engine is empty."""
    cache = EngineCache(_folder())
    for name, found in ((f"{IDENTITY.digest}.json", content), (f"{IDENTITY.digest}.engine", b"")):
        _file(f"engines/{name}", found)
    show_engines("folder", list(cache.entries()))
    cache.get(IDENTITY, lambda: (b"", REPORT))


def _engine(content: bytes) -> None:
    _file("a.engine.json", content)
    path = _file("a.engine", b"")
    read_report(read_engine(path)[1], path)


def _hints(content: bytes) -> None:
    Hints.parse(content.decode(errors="surrogateescape"))


def _bench(content: bytes) -> None:
    found = BenchResult.load(_file("a.json", content))
    show_comparison(compare_results(found, found), 0.05, 0.01)


def _exif_block(content: bytes) -> None:
    """A block that was read is written so that it is read the same again."""
    block = parse_exif(content)
    kept = upright(block, True, True)
    changed = sized(with_density(kept, (72.0, 1e-5), INCH), (3, 4), (12, 16))
    again = parse_exif(changed.to_bytes())
    assert (again.main, again.details, again.gps) == (changed.main, changed.details, changed.gps)
    assert not again.lost
    block.little_endian().to_bytes()
    dpi_of(block), orientation_of(block)
    with_text(block, (Text("parameters", "\u00e9"), Text("Author", "x")))[0].to_bytes()


def _packet(content: bytes) -> None:
    orientation(content)
    kept, _ = without_false(content, bool(len(content) % 2))
    for_size(kept or b"", (3, 4), (12, 16))


def _tiff_directory(content: bytes) -> None:
    try:
        tiff = open_tiff(content)
    except ValueError:  # which `decode` reports
        return
    if tiff is not None:
        resolve_metadata(stored_metadata_of_tiff(tiff), (3, 4), "a")


def _jpeg_end(content: bytes) -> None:
    with suppress(Exception):  # which `decode` reports; a crash or a hang is the fault
        completed(content[:MAX_PIXELS])


METADATA: dict[str, Target] = {
    "exif": _exif_block,
    "xmp": _packet,
    "boxes": lambda content: apply_boxes(StoredMetadata(), content),
    "png": lambda content: resolve_metadata(_png_facts(content), (3, 4), "a"),
    "tiff": _tiff_directory,
    "jpeg": _jpeg_end,
    "iptc": lambda content: (list(resources(content)), iptc_of(content)),
    "icc": lambda content: _profile_of(content),
}
"""By name, what `describing` chooses from."""


def _png_facts(content: bytes) -> StoredMetadata:
    return split_png(with_checksums(SIGNATURE + content), "a")[1]


def with_checksums(content: bytes) -> bytes:
    """A PNG file with the right checksums, so that what is behind them is reached; others as is."""
    changed, place = bytearray(content), len(SIGNATURE)
    while content.startswith(SIGNATURE) and place + 12 <= len(content):
        stop = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if stop > len(content):
            break
        changed[stop - 4 : stop] = zlib.crc32(content[place + 4 : stop - 4]).to_bytes(4, "big")
        place = stop
    return bytes(changed)


def _profile_of(content: bytes) -> None:
    numbers = np.frombuffer(content[: len(content) // 4 * 4], ">u4").astype(float) / 1e5
    points = usable_chromaticities(tuple(numbers[:8]))
    codes = (content[0], content[1]) if len(content) > 1 else None
    gamma = float(numbers[8]) if len(numbers) > 8 and 0.01 < numbers[8] < 100 else None
    for colour in (Colour(codes=codes), Colour(chromaticities=points, gamma=gamma)):
        icc = colour.profile(3)
        assert icc is None or usable_profile(icc, 3, "a") == icc


def describing(content: bytes) -> None:
    """Read what says something about a picture; the first byte chooses which kind."""
    if content:
        list(METADATA.values())[content[0] % len(METADATA)](content[1:])


LOADERS: dict[str, Target] = {
    "onnx": _onnx,
    "properties": _properties,
    "checkpoint": _checkpoint,
    "cache": _cache,
    "engine": _engine,
    "hints": _hints,
    "bench": _bench,
}
"""By name, what `loading` chooses from."""

TARGETS: dict[str, tuple[Target, Callable[[], dict[str, bytes]]]] = {
    "decode": (decoding, lambda: whole_files() | stills()),
    "metadata": (describing, lambda: dict(_statements())),
    "load": (loading, lambda: dict(_seeds())),
    "video": (playing, _clips),
}
"""By name, a target and what makes its seeds."""


def stills() -> dict[str, bytes]:
    """Files that tell much of their pictures, or little of it right."""
    return {path.name: path.read_bytes() for path in sorted(STILLS.iterdir())}


def _statements() -> Iterator[tuple[str, bytes]]:
    """What stills hold, each behind the byte of its kind."""
    kinds = {kind: bytes([number]) for number, kind in enumerate(METADATA)}
    for name, content in stills().items():
        ending = name.rpartition(".")[2]
        by_ending = {"png": "png", "tif": "tiff", "avif": "boxes", "heic": "boxes", "jpg": "jpeg"}
        if ending in by_ending:
            start = len(SIGNATURE) if ending == "png" else 0
            yield name, kinds[by_ending[ending]] + content[start:]
        if ending == "jpg":
            with Image.open(io.BytesIO(content)) as image:
                for kind in ("exif", "xmp"):
                    if kind in image.info:
                        yield f"{name}-{kind}", kinds[kind] + image.info[kind]
    yield "iptc", kinds["iptc"] + resource(b"\x1c\x02\x19\0\x06rocket")
    yield "icc", kinds["icc"] + np.arange(9, dtype=">u4").tobytes()


def _seeds() -> Iterator[tuple[str, bytes]]:
    """Whole files of every kind, each behind the byte of its kind."""
    for number, kind in enumerate(LOADERS):
        for which, content in enumerate(_WHOLE[kind]()):
            yield f"{kind}-{which}", bytes([number]) + content


def _graphs() -> Iterator[bytes]:
    for write in (repeating, with_weights_beside, lambda path: clipping(path, 0, 1)):
        yield write(_folder() / "seed.onnx").read_bytes()
    function = onnx.helper.make_function("own", "Keep", ["x"], ["y"], [], [])
    model = onnx.load_from_string(repeating(_folder() / "seed.onnx").read_bytes())
    model.functions.append(function)
    model.metadata_props.add(key="agsr.steps", value="4")
    yield model.SerializeToString()


def _weights() -> Iterator[bytes]:
    path = _folder() / "seed.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    yield path.read_bytes()
    yield save({"a": np.zeros((2, 3), np.float16)}, {"format": "agsr-generator-1", "config": "{}"})


def _sidecars() -> Iterator[bytes]:
    facts = {"identity": IDENTITY.to_json(), "built": "2026-01-01", "report": REPORT.to_dict()}
    yield json.dumps({"format": "agsr-engine-1", "sha256": _EMPTY, **facts}).encode()


def _engines() -> Iterator[bytes]:
    facts = {"format": "agsr-engine-file-1", "sha256": _EMPTY, "report": REPORT.to_dict()}
    yield json.dumps(facts).encode()


def _results() -> Iterator[bytes]:
    scores = (SetScore(set="Mini", images=(image(float("inf")), image(30.0))),)
    rows = (row(quality=scores, timings=(timing((0.1, 0.2)),)),)
    given = {"created": "2026-01-01", "command": "agsr bench", "environment": {"cores": "2"}}
    peaks = (peak("cpu", "fp32", 0.1),)
    yield BenchResult(**given, rows=rows, peaks=peaks).to_json().encode()  # type: ignore[arg-type]


_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of nothing."""

_WHOLE: dict[str, Callable[[], Iterator[bytes]]] = {
    "onnx": _graphs,
    "properties": lambda: iter(["\n".join(f"{k}={v}" for k, v in _PROPERTIES.items()).encode()]),
    "checkpoint": _weights,
    "cache": _sidecars,
    "engine": _engines,
    "hints": lambda: iter([b"order=bgr,input_peak=255,size=64x48,multiple=8,output=sr"]),
    "bench": _results,
}
_PROPERTIES = REPORT.metadata.to_properties()
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    """A folder of this process."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="agsr-fuzz-"))
    return Path(_FOLDERS[0].name)


def _file(name: str, content: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_bytes(content)
    return path
