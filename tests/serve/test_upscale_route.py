"""POST /v1/upscale: the bytes of ``agsr infer``, its options, formats and messages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command_line import agsr
from conftest import PHOTO
from PIL import Image
from serving import finished, picture, serving
from starlette.testclient import TestClient
from tagged_files import tagged_file

from agsr.cli.infer import infer
from agsr.cli.params import running_options
from agsr.engines.open import open_backend
from agsr.image.encode import FORMATS
from agsr.image.formats.names import FORMAT_ALIASES, FORMAT_CHOICES, IMAGE_FORMATS
from agsr.serve.app import create_app
from agsr.serve.models import OPENING, ModelPool
from agsr.serve.options import parse_options
from agsr.serve.parameters import PARAMETERS
from agsr.serve.settings import ServeSettings

RUNNING = {"backend": "ort", "steps": 1}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path / "spool") as running:
        yield running


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with a shipped network."""
    settings = ServeSettings(spool=tmp_path_factory.mktemp("spool"), running=RUNNING)
    with TestClient(create_app(settings, open_backend), "http://localhost") as running:
        yield running


@pytest.mark.parametrize(
    ("source", "query", "options"),
    [
        ("photo.png", "", ""),
        ("photo.png", "scale=2&format=jpeg&quality=80", "--scale 2 -f jpg --quality 80"),
        ("photo.png", "max-size=50&format=webp", "--max-size 50 -f webp"),
        ("tagged.jpg", "format=same&weights=gan&steps=1", "-f same -w gan"),
        ("tagged.jpg", "strip=1&format=tif&to=70x70", "--strip -f tif --to 70x70"),
        ("rgba.png", "separate_alpha=true&border=wrap", "--separate-alpha --border wrap"),
        ("photo.png", "normal_map=true", "--normal-map"),
        ("photo.png", "tta=true", "--tta"),
    ],
)
def test_the_answer_is_the_file_that_infer_writes(
    real: TestClient, tmp_path: Path, source: str, query: str, options: str
) -> None:
    files = {"tagged.jpg": tagged_file(".jpg"), "rgba.png": picture(mode="RGBA")}
    with Image.open(PHOTO) as photo:
        photo.crop((30, 20, 54, 40)).save(tmp_path / "crop.png")
    files["photo.png"] = (tmp_path / "crop.png").read_bytes()
    (tmp_path / source).write_bytes(files[source])
    usual = ["-b", "ort", "--steps", "1", "--suffix", "_big"]
    written = agsr("infer", str(tmp_path / source), *usual, *options.split())
    assert written.exit_code == 0, written.output
    (path,) = tmp_path.glob("*_big.*")
    answer = real.post(f"/v1/upscale?{query}&name={source}", content=files[source])
    assert answer.status_code == 200, answer.text
    assert answer.content == path.read_bytes()


def test_parameters_are_those_of_the_command_line() -> None:
    options = {p.name: p for p in infer.params if isinstance(p, click.Option)}
    named = {"format": "ext", "to": "fit"}
    for parameter in PARAMETERS:
        if parameter.name == "name":  # of stdin there is none
            continue
        kind = options[named.get(parameter.name, parameter.name)].type
        if isinstance(kind, click.IntRange | click.FloatRange):
            low = None if kind.min is None else float(kind.min)
            assert (parameter.minimum, parameter.maximum) == (low, kind.max), parameter.name
            assert parameter.exclusive == kind.min_open
        if isinstance(kind, click.Choice):
            assert set(parameter.choices) == set(kind.choices), parameter.name


def test_every_option_of_the_network_has_an_effect() -> None:
    """The command passes on what `running_options` have, and the pool uses each."""
    options = {p.name for p in running_options(lambda: None).__click_params__}  # type: ignore[attr-defined]
    of_requests = {parameter.name for parameter in PARAMETERS}
    assert options - of_requests - {"tile", "halo", "hints"} == set(OPENING)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp, image/png;q=0.9", "image/webp"),
        ("image/jpeg;q=0, image/avif;q=0.2, image/bmp;q=0.5", "image/bmp"),
    ],
)
def test_the_accept_header_chooses_the_format(client: TestClient, accept: str, kind: str) -> None:
    answer = client.post("/v1/upscale", content=picture(), headers={"Accept": accept})
    assert answer.headers["content-type"] == kind
    with Image.open(io.BytesIO(answer.content)) as result:
        assert Image.MIME[result.format or ""] == kind
        assert result.size == (48, 36)


def test_an_accept_header_without_known_formats_is_rejected(client: TestClient) -> None:
    answer = client.post("/v1/upscale", content=picture(), headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


def test_a_form_may_carry_file_and_options(client: TestClient) -> None:
    form = {"file": ("dir/Ünï x.png", picture(), "image/png")}
    answer = client.post("/v1/upscale", files=form, data={"scale": "1.5", "format": "bmp"})
    assert answer.status_code == 200, answer.text
    name = answer.headers["content-disposition"]
    assert name.startswith('inline; filename="_n_ x_x1.5.bmp"')
    assert "UTF-8''%C3%9Cn%C3%AF" in name
    assert Image.open(io.BytesIO(answer.content)).size == (18, 14)


def test_losses_are_reported_in_headers_by_the_names_of_the_client(client: TestClient) -> None:
    answer = client.post("/v1/upscale?format=jpg&name=/a/cat.png", content=picture(mode="RGBA"))
    assert answer.status_code == 200
    (warning,) = answer.headers.get_list("agsr-warning")
    assert warning.startswith("cat_x4.jpg: composited on white")
    assert 'filename="cat_x4.jpg"' in answer.headers["content-disposition"]


def test_compressed_pictures_hint_at_weights_for_them(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.open(PHOTO).crop((0, 0, 32, 32)).save(stream, "JPEG", quality=30)
    poor, clean = stream.getvalue(), picture()
    with serving(tmp_path) as client:
        answer = client.post("/v1/upscale?name=cat.jpg", content=poor)
        expected = "cat.jpg has traces of compression (JPEG, quality 30), which psnr enlarges"
        assert answer.headers["agsr-hint"].startswith(expected)
        assert answer.headers["agsr-hint"].endswith("; weights=photo was trained to remove them")
        assert "agsr-hint" not in client.post("/v1/upscale", content=clean).headers
        suited = client.post("/v1/upscale?weights=photo", content=poor)
        assert "agsr-hint" not in suited.headers
        job = finished(client, client.post("/v1/jobs?name=cat.jpg", content=poor).json())
        assert job["hint"] == {
            "code": "compressed",
            "weights": "photo",
            "text": answer.headers["agsr-hint"],
        }
    with serving(tmp_path, weights="psnr", offered=("gan",)) as client:  # photo can't be named
        assert "agsr-hint" not in client.post("/v1/upscale", content=poor).headers


def test_options_of_the_network_are_those_of_all_weights_that_have_them() -> None:
    running = {"backend": "ort", "steps": 2, "precision": "fp16", "hints": "range=255"}
    offered = ("gan", "models/mine.onnx")
    settings = ServeSettings(weights="psnr", offered=offered, running=running)
    assert settings.running_for("psnr") == running
    assert settings.running_for("gan") == {"backend": "ort", "steps": 2, "precision": "fp16"}
    assert settings.running_for("models/mine.onnx") == {"backend": "ort"}
    assert parse_options([("weights", "gan")], settings).steps == 2
    assert parse_options([("weights", "mine")], settings).steps is None
    asked = parse_options([("weights", "gan"), ("steps", "3")], settings)
    assert asked.steps == 3
    few = ServeSettings(weights="models/mine.onnx", offered=("gan",), running={"steps": 30})
    assert parse_options([("weights", "gan")], few).steps is None
    listed = {model["name"]: model for model in ModelPool(settings).listed()}
    assert [listed[name]["default_steps"] for name in ("psnr", "gan", "mine")] == [2, 2, None]
    blended = ServeSettings(weights="psnr:gan:0.3", running={"steps": 7})
    for model in ModelPool(blended).listed():
        assert (model["steps"], model["default_steps"]) == ([*range(1, 8)], 7)


def test_names_of_formats_are_those_that_can_be_written() -> None:
    assert {f".{name}" for name in IMAGE_FORMATS} <= FORMATS.keys()
    assert {form.name for form in FORMATS.values()} == {
        FORMATS[f".{name}"].name for name in IMAGE_FORMATS
    }
    assert set(FORMAT_ALIASES.values()) <= set(FORMAT_CHOICES)
    assert {f".{name}" for name in (*FORMAT_ALIASES, *FORMAT_CHOICES)} >= FORMATS.keys()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("scale=0", "scale is '0'"),
        ("scale=nan", "scale is 'nan'"),
        ("scale=17", "scale is 17.0; expected above 0, at most 16"),
        ("steps=1.5", "steps is '1.5'"),
        ("scale=2&max_size=5", "exclude one another"),
        ("scale=2&outscale=3", "given twice"),
        ("sclae=2", "did you mean 'scale'?"),
        ("to=0x5", "expected WIDTHxHEIGHT"),
        ("format=gif", "expected one of png"),
        ("format=mp4", "an image can't become a video"),
        ("quality=5&format=png", "no quality setting"),
        ("normal_map=1&quality=5", "contradict one another"),
        ("normal_map=1&separate_alpha=1", "implies"),
        ("normal_map=1&format=jpg", "lossless"),
        ("codec=h264", "codec has no effect"),
        ("strip=maybe", "true or false"),
        ("weights=../../etc/passwd", "known: psnr, gan, photo"),
        ("tile=8", "no option named 'tile'"),
    ],
)
def test_wrong_options_are_explained(client: TestClient, query: str, said: str) -> None:
    answer = client.post(f"/v1/upscale?{query}", content=picture())
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_models_and_openapi_describe_what_there_is(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    assert [m["name"] for m in models["models"]] == ["psnr", "gan", "photo"]
    assert models["models"][0]["default"]
    assert models["models"][0]["steps"] == [1, 2, 3, 4, 5, 6]
    assert "fp32" in models["models"][0]["precisions"]
    document = client.get("/openapi.json").json()
    (post,) = [document["paths"]["/v1/upscale"]["post"]]
    names = {parameter["name"] for parameter in post["parameters"]}
    assert {"weights", "steps", "scale", "format"} <= names
    routed = {route.path for route in client.app.routes}  # type: ignore[attr-defined]
    assert set(document["paths"]) <= routed
    answers = [
        content["example"]
        for item in document["paths"].values()
        for method in item.values()
        if isinstance(method, dict)
        for answer in method["responses"].values()
        for content in answer.get("content", {}).values()
        if "example" in content
    ]
    assert answers
    assert all("id" in example or "detail" in example for example in answers)


def test_metrics_count_requests_pixels_and_phases(client: TestClient) -> None:
    client.post("/v1/upscale", content=picture())
    client.post("/v1/upscale", content=b"no picture")
    text = client.get("/metrics").text
    assert 'agsr_requests_total{method="POST",route="/v1/upscale",status="200"} 1.0' in text
    assert 'agsr_requests_total{method="POST",route="/v1/upscale",status="422"} 1.0' in text
    assert 'agsr_pixels_total{of="result"} 1728.0' in text
    assert 'agsr_jobs_total{outcome="failed"} 1.0' in text
    for phase in ("receive", "wait", "load", "work", "send"):
        assert f'agsr_seconds_count{{phase="{phase}"}}' in text
    assert "agsr_disk_bytes 0.0" in text
    assert "process_resident_memory_bytes" in text
