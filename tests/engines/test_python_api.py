"""What Python may hand to an `Upscaler`: each kind works as documented, or is refused clearly."""

from __future__ import annotations

import inspect
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTO, ROOT, Repeat
from image_corpus import png
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

import agsr
from agsr import engines
from agsr.engines.upscaler import Upscaler
from agsr.errors import AgsrError, ImageError, ImageTooLargeError
from agsr.image import read_picture

Array = NDArray[Any]


def _repeated(image: Array) -> Array:
    return image.repeat(4, axis=0).repeat(4, axis=1)


def _upscale(image: Any) -> Any:
    return Upscaler(backend=Repeat())(image)


_RGB = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
_DEEP = _RGB.astype(np.uint16) * 257
_GREY = np.ascontiguousarray(_RGB[..., 0])


def _read_only() -> Array:
    image = _RGB.copy()
    image.flags.writeable = False
    return image


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(_RGB[::2, ::3], id="not contiguous"),
        pytest.param(_RGB[::-1, ::-1, ::-1], id="negative strides"),
        pytest.param(np.asfortranarray(_RGB), id="Fortran order"),
        pytest.param(_RGB.transpose(1, 0, 2), id="transposed"),
        pytest.param(np.broadcast_to(_RGB[:1], _RGB.shape), id="strides of zero"),
        pytest.param(_read_only(), id="read-only"),
        pytest.param(_DEEP, id="16 bits"),
        pytest.param(_DEEP.astype(">u2"), id="16 bits, big-endian"),
        pytest.param((_RGB / 255).astype(np.float16), id="half"),
        pytest.param((_RGB / 255).astype(np.float32), id="float"),
        pytest.param((_RGB / 255).astype(">f4"), id="float, big-endian"),
        pytest.param(_RGB / 255, id="double"),
        pytest.param(_GREY, id="grey"),
        pytest.param(_GREY[..., None], id="grey of one channel"),
        pytest.param(_RGB[..., :2], id="grey and alpha"),
        pytest.param(np.dstack([_RGB, _GREY | 1]), id="RGBA"),
        pytest.param(np.dstack([_DEEP, _DEEP[..., :1] | 1]), id="RGBA of 16 bits"),
        pytest.param(np.dstack([_RGB, _GREY | 1]) / 255, id="RGBA of doubles"),
    ],
)
def test_arrays_become_arrays_of_their_kind_and_are_left_alone(image: Array) -> None:
    before = image.copy()
    large = _upscale(image)
    assert (large.dtype, large.shape[2:]) == (image.dtype, image.shape[2:])
    expected = _repeated(image)
    if image.shape[2:] == (2,):  # hidden colours may change
        seen = expected[..., 1] > 0
        large, expected = large[seen], expected[seen]
    # Grey is a weighted mean of equal values, and double is computed as float.
    assert np.allclose(large.astype(np.float64), expected.astype(np.float64), rtol=1e-5, atol=1e-7)
    assert np.array_equal(image, before)
    assert _upscale(image).flags.c_contiguous  # OpenCV takes nothing else


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (_RGB.astype(np.float32), "float32 from 0 to 255; .* is white 255. Then divide by 255"),
        (_DEEP / 1.0, "float64 from .* is white 65535. Then divide by 65535"),
        (_RGB / 127.5 - 1, "from -1 to 1; .* is black -1. Then add 1 and divide by 2"),
        (np.full((2, 2), 1e9, np.float32), r"from 1e\+09 to 1e\+09; expected floats in \[0, 1\]$"),
        (np.array([[0.5, np.nan, np.inf]]), "has NaN or infinity in 2 places; expected floats"),
        (_RGB.astype(np.int64), r"int64 \(12, 14, 3\); .*astype\(np.uint8\) if the values are"),
        (_GREY > 9, r"bool \(12, 14\); expected .*astype\(np.float32\)"),
        (_RGB.astype(complex), "complex128"),
        (_RGB.transpose(2, 0, 1), r"\(3, 12, 14\); .*channels come last: .transpose\(1, 2, 0\)"),
        (_RGB[None], r"\(1, 12, 14, 3\); .*one image at a time"),
        (_RGB[0, 0], r"uint8 \(3,\); expected \(H, W, 3\)"),
        (_RGB[:0], r"uint8 \(0, 14, 3\); expected"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\); expected"),
        (torch.zeros(3, 4, 4), r"image is a Tensor; .*permute\(1, 2, 0\)"),
        ([[0]], r"image is a list; .*np.array\(..., np.uint8\)"),
        ("photo.png", "image is a str; .*PIL.Image.open"),
        (Path("photo.png"), "image is a PosixPath; .*PIL.Image.open"),
        (None, "image is a NoneType; expected a numpy array or a Pillow image$"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        _upscale(image)


def test_overshoot_of_an_earlier_result_is_no_mistake() -> None:
    image = np.array([[-0.3, 1.3]], np.float32)
    assert np.allclose(_upscale(image), _repeated(image))


def _gradient(mode: str) -> Image.Image:
    return Image.linear_gradient("L").resize((7, 6)).convert("RGB").convert(mode)


def _in_16_bits(kind: str) -> Image.Image:
    return Image.fromarray(np.arange(42, dtype=kind).reshape(6, 7) * 1500)


_MODES = {
    **{mode: (lambda mode=mode: _gradient(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{mode: (lambda mode=mode: _gradient(mode)) for mode in ("CMYK", "YCbCr", "RGBX", "LAB")},
    "I;16": lambda: _in_16_bits("<u2"),
    "I;16B": lambda: _in_16_bits(">u2"),
}
_SHOWN = {"1": "L", "LA": "LA", "L": "L", "RGBA": "RGBA", "I;16": "I;16", "I;16B": "I;16"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", _MODES)
def test_pillow_images_come_out_upright(mode: str, orientation: int) -> None:
    image = _MODES[mode]()
    exif = image.getexif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "Maker"
    large = _upscale(image)
    assert large.mode == _SHOWN.get(mode, "RGB")
    if mode != "LAB":  # which Pillow shows otherwise
        upright = ImageOps.exif_transpose(image)
        if not mode.startswith("I"):
            upright = upright.convert(large.mode)
        expected = _repeated(np.asarray(upright).astype(int))
        assert np.abs(np.asarray(large).astype(int) - expected).max() <= 3
    kept = large.getexif()
    assert (kept.get(ExifTags.Base.Orientation, 1), kept[ExifTags.Base.Make]) == (1, "Maker")
    given = image.getexif()[ExifTags.Base.Orientation]
    assert given == orientation  # the caller's image is as it was
    assert np.array_equal(np.asarray(_upscale(image)), np.asarray(large))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_opened_files_come_out_upright_with_what_they_say(form: str) -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Maker"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.open(PHOTO).convert("RGB").crop((20, 10, 60, 34))
    options: dict[str, Any] = {} if form == "WEBP" else {"dpi": (300, 100)}
    photo.save(stream, form, exif=exif, icc_profile=srgb, quality=95, **options)
    with Image.open(stream) as image:
        large = _upscale(image)
        again = _upscale(image)
    assert large.size == (96, 160)
    turned = np.asarray(photo.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(large).astype(int) - _repeated(turned)).mean() < 4
    assert np.array_equal(np.asarray(again), np.asarray(large))
    assert large.info["icc_profile"] == srgb
    kept = large.getexif()
    assert (kept.get(ExifTags.Base.Orientation, 1), kept[ExifTags.Base.Make]) == (1, "Maker")
    if options:
        assert large.info["dpi"] == pytest.approx((100, 300), abs=0.1)


def test_transparent_colours_of_palettes_and_greys_become_alpha() -> None:
    stream = io.BytesIO()
    palette = _gradient("L").convert("P")
    palette.save(stream, "PNG", transparency=palette.getpixel((3, 3)))
    with Image.open(stream) as image:
        assert image.mode == "P"
        large = _upscale(image)
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert large.mode == "RGBA"
    assert np.array_equal(np.asarray(large)[..., 3], _repeated(alpha))
    assert 0 in alpha
    assert 255 in alpha


def test_damaged_metadata_costs_itself_only(caplog: pytest.LogCaptureFixture) -> None:
    image = _gradient("RGB")
    image.info |= {"exif": b"Exif\0\0nonsense", "icc_profile": b"none", "dpi": (0, -1)}
    large = _upscale(image)
    assert large.size == (28, 24)
    assert large.info == {}
    assert "image: its ICC profile is damaged and is dropped" in caplog.text


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize(
    "keyword", ["icc_profile", "transparency", "exif", "gamma", "interlace", "bbox", "xmp"]
)
def test_png_texts_are_not_confused_with_pillows_own_info(
    keyword: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream, texts, image = io.BytesIO(), PngImagePlugin.PngInfo(), _gradient(mode)
    texts.add_text(keyword, "some text")
    texts.add_text("Title", "kept")
    image.save(stream, "PNG", pnginfo=texts)
    with Image.open(stream) as opened:
        large = _upscale(opened)
        assert keyword in opened.info  # the caller's own is as it was
    assert large.info == {"Title": "kept"}
    assert f"image: its text '{keyword}' has a reserved name and is ignored" in caplog.text
    expected = _repeated(np.asarray(image.convert(large.mode)).astype(int))
    assert np.abs(np.asarray(large).astype(int) - expected).max() <= 3
    large.save(io.BytesIO(), "JPEG")


@pytest.mark.parametrize("keyword", ["interlace", "bbox"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png_texts_do_not_change_how_pixels_are_read(keyword: str, interlaced: bool) -> None:
    text = (b"tEXt", keyword.encode() + b"\0some text")
    with Image.open(io.BytesIO(png(2, 8, interlaced))) as plain:
        expected = np.asarray(_upscale(plain))
    with Image.open(io.BytesIO(png(2, 8, interlaced, text))) as image:
        assert np.array_equal(np.asarray(_upscale(image)), expected)
        assert image.info[keyword] == "some text"


def test_a_text_named_xmp_does_not_replace_xmp() -> None:
    stream, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", "<x/>")
    texts.add_text("xmp", "<not/>")
    _gradient("RGB").save(stream, "PNG", pnginfo=texts)
    with Image.open(stream) as image:
        assert _upscale(image).info == {"xmp": b"<x/>"}


def test_xmp_stays_with_its_orientation_reset() -> None:
    stream, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3" other="9"/>')
    _gradient("RGB").save(stream, "PNG", pnginfo=texts)
    with Image.open(stream) as image:
        large = _upscale(image)
        image.load()
        shown = ImageOps.exif_transpose(image)
    assert large.info["xmp"] == b'<x tiff:Orientation="1" other="9"/>'
    assert np.array_equal(np.asarray(large), _repeated(np.asarray(shown)))


@pytest.mark.parametrize(
    ("mode", "hint"),
    [("F", "makes an array in"), ("I", r"convert\('I;16'\)"), ("HSV", r"convert\('RGB'\)")],
)
def test_other_modes_are_refused_with_the_way_round(mode: str, hint: str) -> None:
    with pytest.raises(ImageError, match=f"image: {mode} pixels; expected 8 bits .*{hint}"):
        _upscale(Image.new(mode, (4, 4)))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(AgsrError, match="expected"):
        _upscale(Image.new("RGB", (0, 5)))


@pytest.mark.usefixtures("all_cpus")
def test_threads_get_what_one_alone_gets(
    onnx_file: Callable[[int], Path], photo: NDArray[np.uint8]
) -> None:
    jobs: list[Any] = [photo[n : n + 20 + n, n : n + 30 + 3 * n] for n in range(6)]
    jobs += [Image.fromarray(jobs[2]), jobs[3] / 255]
    with Upscaler(str(onnx_file(2)), tile=16, halo=4) as upscaler:
        alone = [np.asarray(upscaler(image)) for image in jobs]
        with ThreadPoolExecutor(6) as pool:
            together = [np.asarray(large) for large in pool.map(upscaler, jobs * 2)]
    for expected, found in zip(alone * 2, together, strict=True):
        assert np.array_equal(found, expected)


def test_the_call_of_the_readme_works(photo: NDArray[np.uint8]) -> None:
    assert agsr.Upscaler("psnr", backend="auto", steps=4)(photo[:8, :9]).shape == (32, 36, 3)
    text = inspect.getdoc(Upscaler.__call__)
    assert text is not None
    for word in ("(H, W, 3)", "uint8", "uint16", "[0, 1]", "Returns:", "ImageError", "MemoryError"):
        assert word in text


TYPED = """
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agsr import Upscaler


def enlarge(photo: Image.Image, pixels: NDArray[np.uint8]) -> Image.Image:
    with Upscaler("psnr", backend="auto", steps=4) as upscaler:
        reveal_type(upscaler(pixels))
        reveal_type(upscaler(photo, progress=print))
        print(upscaler.info.summary)
        return upscaler(photo)


Upscaler("psnr", steps="four")
Upscaler("psnr", threads="two")
Upscaler("psnr", scale=2)
Upscaler("psnr")(["no image"])
"""


@pytest.mark.slow
def test_the_types_of_the_package_are_seen_by_others(tmp_path: Path) -> None:
    assert (ROOT / "agsr" / "py.typed").is_file()
    (tmp_path / "example.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", str(tmp_path / "example.py")]
    done = subprocess.run(
        command,
        cwd=ROOT,  # whose settings are strict
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "example.py" in line]
    assert "ndarray" in lines[0], done.stdout
    assert 'Revealed type is "PIL.Image.Image"' in lines[1]
    assert 'Argument "steps" to "Upscaler" has incompatible type "str"' in lines[2]
    assert 'Argument "threads" to "Upscaler" has incompatible type "str"' in lines[3]
    assert 'Argument "scale" to "Upscaler" has incompatible type "int"' in lines[4]
    assert "No overload variant" in lines[5]


def test_arguments_that_do_nothing_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Upscaler\(\) got an unexpected keyword argument 'scale'"):
        Upscaler(scale=2)
    with pytest.raises(TypeError, match=r"upscaler\(image, scale=2\)"):
        Upscaler(scale=2)
    with pytest.raises(TypeError, match=r"'provder'; did you mean 'provider'\?"):
        Upscaler(provder="cpu")
    with pytest.raises(TypeError, match="can't be changed; remove steps"):
        Upscaler(backend=Repeat(), steps=2)
    with pytest.raises(TypeError, match="can't be changed; remove precision"):
        Upscaler(backend=Repeat(), precision="bf16")


def test_engines_export_the_api_without_loading_a_runtime() -> None:
    code = (
        "import sys; from agsr import engines; loaded = {'numpy', 'torch'} & set(sys.modules); "
        "print(loaded, engines.Upscaler.__name__, engines.open_backend.__name__, dir(engines))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout == "set() Upscaler open_backend ['Upscaler', 'open_backend']\n"
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        engines.missing  # noqa: B018


def test_limits_are_attributes_of_the_error_so_that_callers_can_raise_them(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (6, 5)).save(path)
    with pytest.raises(ImageTooLargeError, match="30 pixels, more than 20") as raised:
        read_picture(path, 20)
    error = pickle.loads(pickle.dumps(raised.value))
    assert (error.path, error.limit, error.found) == (str(path), 20, 30)
    assert str(error) == str(raised.value)
    assert read_picture(path, error.found).pixels.shape[:2] == (5, 6)


def test_the_package_lists_what_it_offers() -> None:
    names = ["AgsrError", "OutputSize", "Upscaler", "__version__", "read_picture", "write_picture"]
    assert dir(agsr) == names
    assert all(getattr(agsr, name) for name in names)
