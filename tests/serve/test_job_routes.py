"""Jobs: queue, progress, results, ranges, cancelling, expiry and the stop of a server."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, make
from PIL import Image
from serving import Gated, finished, picture, serving, wait_for
from starlette.testclient import TestClient
from stubs import Repeat

from agsr.serve import board as board_module
from agsr.serve.app import create_app
from agsr.serve.board import Board
from agsr.serve.settings import ServeSettings


@pytest.fixture
def backend() -> Iterator[Gated]:
    found = Gated()
    yield found
    found.open_gate()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def client(spool: Path, backend: Gated) -> Iterator[TestClient]:
    with serving(spool, backend, queue=1) as running:
        yield running
        backend.open_gate()


def _board(client: TestClient) -> Board:
    board: Board = client.app.state.serving.board  # type: ignore[attr-defined]
    return board


def _post(client: TestClient, query: str = "", **options: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/jobs?{query}", content=picture(), **options)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"].endswith(answer.json()["id"])
    return dict(answer.json())


def _files(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.is_file()]


def test_a_job_runs_and_its_result_can_be_fetched_in_ranges(client: TestClient) -> None:
    job = finished(client, _post(client, "scale=2&name=cat.png"))
    assert job["state"] == "done"
    assert job["progress"] == 1
    assert job["input"] == {"name": "cat.png", "width": 12, "height": 9}
    result = job["result"]
    assert (result["name"], result["width"], result["height"]) == ("cat_x2.png", 24, 18)
    whole = client.get(job["links"]["result"])
    assert len(whole.content) == result["bytes"]
    assert Image.open(io.BytesIO(whole.content)).size == (24, 18)
    part = client.get(job["links"]["result"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{result['bytes']}"
    for wrong in ("bytes=999999-", "pages=1"):
        outside = client.get(job["links"]["result"], headers={"Range": wrong})
        assert (outside.status_code, outside.json()["code"]) == (416, "bad_range")
    head = client.head(job["links"]["result"])
    assert head.headers["content-length"] == str(result["bytes"])


def test_events_report_progress_until_the_end(client: TestClient, backend: Gated) -> None:
    backend.close_gate()
    job = _post(client)
    backend.wait_for_tile()
    found = wait_for(lambda: _shows(client, job, "running"))
    assert found["position"] is None
    backend.open_gate()
    text = client.get(job["links"]["events"]).text
    events = [block.splitlines() for block in text.strip().split("\n\n")]
    assert events[-1][0] == "event: done"
    assert json.loads(events[-1][1].removeprefix("data: "))["result"]["width"] == 48


def _shows(client: TestClient, job: dict[str, Any], state: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(job["links"]["self"]).json()
    return found if found["state"] == state else None


def test_progress_is_that_of_the_tiles(client: TestClient, backend: Gated) -> None:
    """A picture of 12x9 pixels has four tiles of 8."""
    backend.close_gate()
    job = _post(client)
    shares = []
    for number in range(1, 5):
        backend.wait_for_tile(number)
        shares.append(client.get(job["links"]["self"]).json()["progress"])
        backend.pass_one()
    assert finished(client, job)["state"] == "done"
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0 < shares[-1] < 1


def test_a_full_queue_is_answered_with_429(client: TestClient, backend: Gated) -> None:
    backend.close_gate()
    first, second = _post(client), _post(client)
    assert client.get(second["links"]["self"]).json()["position"] == 1
    for path in ("/v1/jobs", "/v1/upscale"):
        full = client.post(path, content=picture())
        assert (full.status_code, full.json()["code"]) == (429, "queue_full")
        assert 1 <= int(full.headers["retry-after"]) <= 300
    backend.open_gate()
    assert [finished(client, job)["state"] for job in (first, second)] == ["done", "done"]
    assert client.post("/v1/upscale", content=picture()).status_code == 200


def test_deleting_cancels_what_runs_and_what_waits(
    client: TestClient, backend: Gated, spool: Path
) -> None:
    backend.close_gate()
    running, waiting = _post(client), _post(client)
    backend.wait_for_tile()
    for job in (waiting, running):
        assert client.delete(job["links"]["self"]).status_code == 204
        assert _shows(client, job, "cancelled")
    result = client.get(f"{running['links']['self']}/result")
    assert (result.status_code, result.json()["detail"]) == (409, "the job is cancelled")
    calls = len(backend.shapes)
    backend.open_gate()
    wait_for(lambda: _board(client).running == 0)
    assert len(backend.shapes) - calls <= 2  # the tile that ran, and one that had begun
    assert _files(spool) == []
    assert 'agsr_jobs_total{outcome="cancelled"} 2.0' in client.get("/metrics").text
    for job in (waiting, running):
        assert client.delete(job["links"]["self"]).status_code == 204
        assert client.get(job["links"]["self"]).status_code == 404


def test_few_jobs_without_a_result_are_remembered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "MOST_ENDED", 2)
    posted = (client.post("/v1/jobs", content=b"damaged").json() for _ in range(4))
    jobs = [finished(client, job) for job in posted]
    known = [client.get(job["links"]["self"]).status_code for job in jobs]
    assert known == [404, 404, 200, 200]


def test_an_answer_leaves_no_file_behind(client: TestClient, spool: Path) -> None:
    assert client.post("/v1/upscale", content=picture()).status_code == 200
    assert client.post("/v1/upscale", content=b"damaged").status_code == 422
    assert client.post("/v1/upscale?scale=0", content=picture()).status_code == 400
    assert _files(spool) == []
    assert _board(client).disk == 0


def test_a_failed_job_has_the_problem_of_its_file(client: TestClient) -> None:
    answer = client.post("/v1/jobs?name=a.png", content=picture()[:60])
    job = finished(client, answer.json())
    assert (job["state"], job["problem"]["status"]) == ("failed", 422)
    assert job["progress"] < 1
    assert job["problem"]["detail"].startswith("a.png: ")
    assert client.get(f"/v1/jobs/{job['id']}/result").status_code == 422


def test_results_expire(spool: Path) -> None:
    with serving(spool, keep_minutes=0.001) as client:
        job = _post(client)
        wait_for(lambda: client.get(job["links"]["self"]).status_code == 404)
        assert _files(spool) == []


def test_the_disk_is_bounded(spool: Path) -> None:
    with serving(spool, max_disk=900) as client:
        job = finished(client, _post(client))
        assert job["result"]["bytes"] > 500
        full = client.post("/v1/jobs", content=picture())
        assert (full.status_code, full.json()["code"]) == (503, "disk_full")
        client.delete(job["links"]["self"])
        _post(client)


def test_unknown_ids_and_unfinished_results(client: TestClient, backend: Gated) -> None:
    for path in ("/v1/jobs/x", "/v1/jobs/../../etc/passwd", "/v1/jobs/%2e%2e%2fx/result"):
        assert client.get(path).status_code == 404
    backend.close_gate()
    job = _post(client)
    early = client.get(f"{job['links']['self']}/result")
    assert (early.status_code, early.json()["code"]) == (409, "not_done")
    assert len({_post(client)["id"], job["id"]}) == 2
    assert len(job["id"]) >= 24


def test_a_stopping_server_finishes_what_runs_and_refuses_the_rest(
    client: TestClient, backend: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "FETCH_SECONDS", 60)
    backend.close_gate()
    running, waiting = _post(client), _post(client)
    backend.wait_for_tile()
    board = _board(client)
    client.portal.call(board.drain)  # type: ignore[union-attr]
    refused = client.post("/v1/upscale", content=picture())
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert _shows(client, waiting, "cancelled")
    assert not board.drained
    backend.open_gate()
    job = finished(client, running)
    assert job["state"] == "done"
    assert not board.drained  # somebody may want the result
    client.get(job["links"]["result"])
    wait_for(lambda: board.drained)


def test_a_video_is_a_job(spool: Path, tmp_path: Path) -> None:
    content = make(tmp_path / "a.mp4", Clip(frames=3, width=16, height=16)).read_bytes()
    with serving(spool, running={"tile": 0}) as client:
        at_once = client.post("/v1/upscale?name=a.mp4", content=content)
        assert (at_once.status_code, at_once.json()["code"]) == (415, "video")
        for query, kind in (("", {}), ("?name=clip", {"Content-Type": "application/octet-stream"})):
            unnamed = client.post(f"/v1/upscale{query}", content=content, headers=kind)
            assert (unnamed.status_code, unnamed.json()["code"]) == (415, "video")
        form = client.post("/v1/upscale", files={"file": ("blob", content)})
        assert form.json()["code"] == "video"
        mixed = client.post("/v1/jobs?name=a.mp4&format=png", content=content)
        assert "a video can't become an image" in mixed.json()["detail"]
        kind = {"Content-Type": "video/mp4"}
        answer = client.post("/v1/jobs?scale=2", content=content, headers=kind)
        job = finished(client, answer.json())
        assert job["state"] == "done", job
        assert job["result"]["type"] == "video/mp4"
        assert (job["result"]["width"], job["result"]["height"]) == (32, 32)
        assert client.get(job["links"]["result"]).content[4:8] == b"ftyp"
        playlist = b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"
        job = finished(client, client.post("/v1/jobs?name=a.mp4", content=playlist).json())
        assert job["problem"]["status"] == 422


def test_several_workers_give_the_same_bytes(spool: Path) -> None:
    with serving(spool, workers=3) as client, ThreadPoolExecutor(6) as pool:
        content = picture(24, 20)
        answers = pool.map(lambda _: client.post("/v1/upscale", content=content), range(12))
        assert len({(answer.status_code, answer.content) for answer in answers}) == 1


def test_few_networks_stay_loaded(spool: Path) -> None:
    opened: list[Repeat] = []

    def open_one(**_: object) -> Repeat:
        opened.append(Repeat())
        return opened[-1]

    app = create_app(ServeSettings(spool=spool, loaded=2), open_one)
    with TestClient(app, "http://localhost") as client:
        for weights in ("psnr", "gan", "psnr", "photo", "psnr"):
            answer = client.post(f"/v1/upscale?weights={weights}", content=picture())
            assert answer.status_code == 200
        client.post("/v1/upscale?border=wrap", content=picture())
        assert [network.closed for network in opened] == [0, 1, 0]  # gan was unused for longest
    assert all(network.closed for network in opened)


def test_a_full_disk_is_reported(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/in.png")

    monkeypatch.setattr("agsr.serve.routes.receive_upload", full)
    answer = client.post("/v1/upscale", content=picture())
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert "secret" not in answer.text
