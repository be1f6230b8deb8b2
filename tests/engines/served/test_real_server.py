"""A real ``tritonserver`` on the loopback interface, with repositories that agsr writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import agsr
from conftest import PHOTO
from foreign_graphs import repeating
from serving import LOCAL, wait_for
from starlette.testclient import TestClient
from triton_server import NEEDS_TRITON, TritonServer, running

from agsr import Upscaler
from agsr.engines.foreign import ForeignBackend
from agsr.engines.open import open_backend
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.triton import lane
from agsr.engines.triton.client import ServerAwayError
from agsr.export.served_network import exported_network, foreign_network
from agsr.export.triton import Serving, write_repository
from agsr.export.verify import sample_batch
from agsr.serve.app import create_app
from agsr.serve.settings import ServeSettings

pytestmark = [NEEDS_TRITON, pytest.mark.slow]

TILE = 64
PYTHON = Serving(runtime="python", max_batch=4)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, onnx_file: Callable[[int], Path]
) -> Iterator[TritonServer]:
    """A server of three models: the tiny network, its tiles, and another project's."""
    work = tmp_path_factory.mktemp("triton")
    models, exported = work / "models", onnx_file(1)
    other = repeating(work / "other.onnx", layout="NHWC", kind="uint8", scale=2)
    with ForeignBackend(other) as probed:
        described = foreign_network(probed.io_spec, probed.info, 0)
    write_repository(models, "tiny-1", exported, exported_network(exported, TILE), PYTHON)
    write_repository(models, "other", other, described, PYTHON)
    yield from running(models, work)


@pytest.fixture
def picture() -> np.ndarray:
    return sample_batch(1, 90, 110)[0].transpose(1, 2, 0)


def _memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("agsr-*")}


def _urls(server: TritonServer) -> list[str]:
    return [server.grpc, server.http, f"{server.grpc}?shm=off", f"{server.http}?shm=off"]


def test_results_equal_onnx_runtimes_by_both_protocols_and_leave_no_memory(
    server: TritonServer, onnx_file: Callable[[int], Path], picture: np.ndarray
) -> None:
    with Upscaler(backend=OrtBackend(onnx_file(1)), tile=0) as local:
        expected, small = local(picture), local(picture[:40, :50])
    for url in _urls(server):
        for weights, tile in (("tiny", 40), ("tiny-1-tile64", "auto")):
            with Upscaler(weights, url=url, steps=1, tile=tile, halo="exact") as remote:
                np.testing.assert_allclose(remote(picture), expected, atol=1e-5)
                # Smaller than a tile: left to the model for any size.
                np.testing.assert_allclose(remote(picture[:40, :50]), small, atol=1e-5)
                registered = _registered(server)
                assert bool(registered) == ("shm=off" not in url)
            assert _registered(server) == [] == sorted(_memory())


def _registered(server: TritonServer) -> list[str]:
    """Names of the shared memory that the server holds for clients."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        status = client.get_system_shared_memory_status(as_json=True)
    return sorted(status.get("regions", {}))


def test_another_projects_network_and_pictures_of_several_threads(
    server: TritonServer, picture: np.ndarray
) -> None:
    levels = np.round(picture * 255).astype(np.uint8)
    results: list[np.ndarray] = []
    with Upscaler("other", url=server.http, tile=48, halo=0) as upscaler:
        assert upscaler.info.scale == 2
        threads = [
            threading.Thread(target=lambda: results.append(upscaler(levels))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result, levels.repeat(2, axis=0).repeat(2, axis=1))


def test_the_commands_and_the_server_run_it(
    server: TritonServer, onnx_file: Callable[[int], Path], small_files: Path
) -> None:
    remote = ("-w", "tiny", "-s", "1", "--backend", "triton", "--url", server.grpc)
    local = ("-w", str(onnx_file(1)), "--backend", "ort")
    for arguments, name in ((remote, "remote.png"), (local, "local.png")):
        result = agsr("infer", "a.png", "-o", name, *arguments)
        assert result.exit_code == 0, result.output
    found, expected = (cv2.imread(name).astype(int) for name in ("remote.png", "local.png"))
    assert np.abs(found - expected).max() <= 1  # a rounded value may differ

    (small_files / "set").mkdir()
    cv2.imwrite("set/x.png", cv2.imread(str(PHOTO))[:48, :48])
    scores = []
    for arguments in (remote, local):
        result = agsr("eval", "--set", "set", "--json", *arguments)
        assert result.exit_code == 0, result.output
        scores.append(json.loads(result.stdout)["mean"]["psnr"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)

    running = {"backend": "triton", "url": server.grpc, "steps": 1}
    settings = ServeSettings(weights="tiny", running=running, spool=small_files / "spool")
    with TestClient(create_app(settings), LOCAL) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        content = (small_files / "a.png").read_bytes()
        answer = client.post("/v1/upscale", content=content)
        assert answer.status_code == 200, answer.text
        served = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(served, cv2.imread("remote.png"))
        (listed,) = client.get("/v1/models").json()["models"]
        assert (listed["name"], listed["scale"]) == ("tiny", None)


def test_a_benchmark_has_its_row_with_parity_and_throughput(
    server: TritonServer,
    onnx_file: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)  # where LPIPS would be found
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set" / "x.png"), cv2.imread(str(PHOTO))[:48, :48])
    arguments = ["-w", str(onnx_file(1)), "--backends", "triton", "--url", server.grpc]
    found = tmp_path / "found.json"
    options = ["--size", "32x24", "--rounds", "1", "--set", str(tmp_path / "set")]
    result = agsr("bench", *arguments, *options, "--json", str(found))
    assert result.exit_code == 0, result.output
    rows = {row["contender"]["backend"]: row for row in json.loads(found.read_text())["rows"]}
    row = rows["triton"]
    assert (row["error"], row["device"]) == ("", server.grpc)
    (quality,) = row["quality"]
    assert quality["images"][0]["parity"]["largest"] < 0.01
    (timing,) = row["timings"]
    assert timing["summary"]["output_megapixels_per_second"] > 0


def test_a_killed_server_is_an_error_and_a_restarted_one_continues(
    server: TritonServer, onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "PAUSE", 0.01)
    lr = sample_batch(1, 24, 24)
    with OrtBackend(onnx_file(1)) as local, ExitStack() as stack:
        expected = local.upscale(lr)
        urls = [f"{url}?retries=1&requests=1" for url in (server.grpc, server.http)]
        opened = [open_backend("triton", "tiny-1", url=url) for url in (*urls, urls[0])]
        for backend in opened:
            stack.enter_context(backend)
            np.testing.assert_allclose(backend.upscale(lr), expected, atol=1e-5)
        server.kill()
        for backend in opened[:2]:  # the third one doesn't notice
            with pytest.raises(ServerAwayError, match=r"no Triton server answers .*2 attempts"):
                backend.upscale(lr)
        with pytest.raises(ServerAwayError, match=r"no Triton server answers \(Connection refused"):
            open_backend("triton", "tiny-1", url=urls[0])
        server.start()
        for backend in opened:
            np.testing.assert_allclose(backend.upscale(lr), expected, atol=1e-5)
    assert not _memory()
