"""What a server rejects: names, origins, tokens, bodies, paths, damaged and dangerous files."""

from __future__ import annotations

import asyncio
import gc
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Any

import psutil
import pytest
from image_corpus import whole_files
from serving import picture, serving
from starlette.testclient import TestClient

from agsr.serve.advice import for_clients, without_paths
from agsr.serve.app import create_app
from agsr.serve.settings import ServeSettings

PATH = re.compile(r"/(tmp|home|root|usr|work|etc|var)/|\.agsr-|Traceback|site-packages|\.py\b")
"""What no answer may contain."""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path / "spool") as running:
        yield running


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:8188", True),
        ("127.0.0.1", True),
        ("[::1]:8188", True),
        ("LOCALHOST", True),
        ("pictures.example.org:80", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("evil.example:80@localhost", False),
        ("127.0.0.1.nip.io", False),
        ("10.0.0.1", False),
        ("localhost:80:80", False),
        ("", False),
    ],
)
def test_names_of_other_servers_are_rejected(tmp_path: Path, host: str, known: bool) -> None:
    with serving(tmp_path, allow_hosts=("pictures.example.org",)) as client:
        for path in ("/healthz", "/", "/v1/models"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == (200 if known else 421), path


def test_a_server_for_all_addresses_accepts_addresses_but_no_names(tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0") as client:
        assert client.get("/healthz", headers={"Host": "192.168.1.20:8188"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 421


def test_other_pages_may_not_send_anything(tmp_path: Path) -> None:
    with serving(tmp_path, allow_origins=("https://ours.example",)) as client:
        for origin, status in (
            ("http://localhost", 200),
            ("https://ours.example", 200),
            ("https://evil.example", 403),
            ("http://localhost.evil.example", 403),
            ("null", 403),
        ):
            answer = client.post("/v1/upscale", content=picture(), headers={"Origin": origin})
            assert answer.status_code == status, origin
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if origin == "https://ours.example" else None)


def test_without_an_option_no_origin_is_allowed(client: TestClient) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/upscale", headers=asked)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "Basic sesame", "Bearer \xff"]
)
def test_a_token_is_required(tmp_path: Path, given: str | None) -> None:
    with serving(tmp_path, token="sesame") as client:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("POST", "/v1/upscale"),
            ("GET", "/v1/jobs/x"),
            ("GET", "/v1/nothing"),
        ):
            answer = client.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/healthz", "/readyz", "/"):
            assert client.get(path).status_code == 200
        right = {"Authorization": "Bearer sesame"}
        assert client.post("/v1/upscale", content=picture(), headers=right).status_code == 200
        bare = client.get("/v1/models", headers={"Authorization": "bearer  sesame "})
        assert bare.status_code == 200


def test_bodies_and_pictures_are_limited_before_anything_is_decoded(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_bytes": 4000, "max_pixels": 200, "max_result_pixels": 1500}
    with serving(tmp_path, **limits) as client:
        assert client.post("/v1/upscale?scale=3", content=picture(12, 9)).status_code == 200
        for content, options, said in (
            (bytes(4001), "", "4001 bytes"),
            (iter([bytes(3000), bytes(3000)]), "", "6000 bytes"),
            (picture(15, 14), "", "15x14 pixels"),
            (picture(12, 9), "scale=4", "48x36 pixels, more than 1500"),
            (bomb(60_000, 60_000), "", "60000x60000 pixels"),
        ):
            answer = client.post(f"/v1/upscale?{options}", content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
            assert said in answer.json()["detail"]
            assert "--" not in answer.json()["detail"]
        form = {"file": ("a.png", bytes(4500))}
        assert client.post("/v1/upscale", files=form).status_code == 413


def bomb(width: int, height: int) -> bytes:
    """A PNG file that claims to be large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))

    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_forms_without_a_file_or_with_too_much_are_rejected(client: TestClient) -> None:
    two = [("file", ("a.png", picture())), ("more", ("b.png", picture()))]
    for options in (
        {"data": {"scale": "2"}, "files": {}},
        {"files": two},
        {"files": {"file": ("a.png", b"")}},
        {"files": {"file": ("a.png", picture())}, "data": {f"x{n}": "1" for n in range(40)}},
        {"content": b"--", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b""},
    ):
        answer = client.post("/v1/upscale", **options)  # type: ignore[arg-type]
        assert 400 <= answer.status_code < 500, options
        assert answer.headers["content-type"] == "application/problem+json"


def test_damaged_files_cost_a_4xx_each_and_the_server_lives(client: TestClient) -> None:
    for name, content in list(whole_files().items())[::3]:
        for damaged in (content[: len(content) // 2], content[:30], bytes(200) + content):
            answer = client.post(f"/v1/upscale?name={name}", content=damaged)
            if answer.status_code != 200:  # some are complete enough
                assert 400 <= answer.status_code < 500, (name, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
            assert not PATH.search(answer.text if answer.status_code != 200 else "")
            assert not PATH.search(" ".join(answer.headers.get_list("agsr-warning")))
    assert client.post("/v1/upscale", content=picture()).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/app.js/../server.py",
        "/page/index.html",
        "/v1/jobs/..%2f..%2f..%2fetc%2fpasswd/result",
        "/static/..\\..\\x",
        "/%00",
    ],
)
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert not PATH.search(answer.text)


def test_names_of_uploads_are_no_paths(client: TestClient, tmp_path: Path) -> None:
    before = sorted(tmp_path.parent.rglob("*"))
    for name in ("../../x.png", "/etc/x.png", "..\\x.png", "a\r\nSet-Cookie: b.png", "..", ""):
        form = {"file": (name, picture(), "image/png")}
        answer = client.post("/v1/upscale", files=form)
        disposition = answer.headers.get("content-disposition", "")
        assert "/" not in disposition.replace("UTF-8''", "")
        assert ".." not in disposition
        assert "set-cookie" not in answer.headers
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_answers_carry_headers_against_scripts_and_frames(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nothing"), client.get("/v1/models")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert not re.search(
        r"<script(?![^>]*src=)|\son\w+=|style=|(?:src|href)=\"(?:https?:)?//", page
    )


def test_failures_of_the_server_show_no_trace(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret at /srv/secret.py")

    monkeypatch.setattr("agsr.serve.app.upscale_file", fail)
    job = client.post("/v1/upscale", content=picture())
    monkeypatch.setattr("agsr.serve.routes.openapi", fail)
    for answer in (job, client.get("/openapi.json")):
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
    assert "secret.py" in capsys.readouterr().err  # the log has it


def test_paths_are_removed_from_messages() -> None:
    message = "/x/y/models/a.onnx: is fp32, see C:\\Users\\me\\b.onnx and 3/4 or a/b"
    assert without_paths(message, {}) == "a.onnx: is fp32, see b.onnx and 3/4 or a/b"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a.png: 9x9 is 81 pixels, more than 4; if you trust the file: --max-pixels 81", "than 4"),
        ("a.png: out of memory; use a smaller --tile", "out of memory"),
        ("too large; use PNG, or --max-size 65500", "use PNG, or max_size=65500"),
        ("use two commands, like --scale 4 and then the rest (--max-size)", "scale=4 and"),
        ("--crf 99: h264 accepts 0 to 51; smaller is better", "crf=99: h264 accepts 0 to 51"),
        ("x: no fp16; make it with: agsr export -w WEIGHTS --precision fp16", "x: no fp16"),
        ("no such network; -w photo may do", "weights=photo may do"),
        ("HEIC needs a package. Install it with: pip install 'agsr[heif]'", "needs a package"),
    ],
)
def test_advice_names_options_of_requests_or_is_removed(message: str, shown: str) -> None:
    found = for_clients(message, {})
    assert shown in found
    assert not re.search(r"(?<!\w)--?[a-z]|agsr export|pip install", found)


def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    with serving(tmp_path, ui=False) as client:
        for path in ("/", "/app.js"):
            assert client.get(path).json()["code"] == "not_found"
        assert client.get("/v1/models").status_code == 200


def test_a_slow_body_is_cut(tmp_path: Path) -> None:
    """By the application itself, whatever server runs it."""
    app = create_app(ServeSettings(spool=tmp_path, body_grace=0.05), lambda **_: None)  # type: ignore[arg-type,return-value]
    sent: list[Any] = []

    async def run() -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/upscale",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"content-length", b"100")],
        }

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(30)
            return {"type": "http.request", "body": b"", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.router.lifespan_context(app):
            await app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert sent[0]["status"] == 408


def test_memory_is_flat_over_many_requests(tmp_path: Path) -> None:
    with serving(tmp_path, running={}) as client:
        _check_memory(client)


def _check_memory(client: TestClient) -> None:
    content = picture(96, 96)

    def upscale(count: int) -> int:
        for _ in range(count):
            assert client.post("/v1/upscale?format=bmp", content=content).status_code == 200
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    before = upscale(40)
    after = upscale(160)
    assert after - before < 30 << 20  # results that stay would take 70 MB
    assert not client.app.state.serving.board._jobs  # type: ignore[attr-defined]
