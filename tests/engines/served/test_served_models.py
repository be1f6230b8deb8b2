"""The backend of a Triton server, against its protocol: tritonclient's own messages."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_graphs import repeated
from kserve import FOREIGN, REPEAT, Server, config, described, kserve
from triton_server import free_port

from agsr import Upscaler
from agsr.backend import Batch
from agsr.contract import SizeRule
from agsr.engines.open import open_backend
from agsr.engines.triton import lane
from agsr.engines.triton.client import ServerAwayError, ServerLateError
from agsr.errors import (
    BackendError,
    HintsError,
    ModelError,
)
from agsr.export.verify import sample_batch


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with kserve(config(REPEAT, described()), config(FOREIGN)) as running:
        yield running


@pytest.fixture
def lr() -> Batch:
    return sample_batch(1, 20, 24)


def _memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("agsr-*")}


def test_a_served_export_describes_itself(server: Server, lr: Batch) -> None:
    with open_backend("triton", "repeat", steps=1, url=server.url) as backend:
        info = backend.info
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert (info.name, info.device, info.model) == ("triton", server.url, "repeat-1")
    assert (info.steps, info.precision, info.scale) == (1, "fp32", 4)
    assert (info.receptive_radius, info.weights_hash) == (3, "f" * 64)


def test_an_address_alone_chooses_the_backend(server: Server) -> None:
    with open_backend(weights="repeat-1", url=server.url) as backend:
        assert backend.info.name == "triton"


def test_another_projects_model_is_probed_as_its_onnx_file_is(server: Server) -> None:
    lr = np.round(sample_batch(3, 20, 24) * 255) / np.float32(255)
    with open_backend("triton", "other", url=server.url) as backend:
        assert backend.info.scale == 2
        assert backend.info.io_format.startswith("NHWC uint8 RGB, white is 255")
        np.testing.assert_allclose(backend.upscale(lr), repeated(lr, 2), atol=1e-6)


def test_parameters_give_the_hints_that_probing_cannot_find(lr: Batch) -> None:
    text = REPEAT.replace('"lr"', '"in"')
    hints = {"agsr.hints": "input_peak=1,output_peak=1,order=bgr,output_order=rgb"}
    with kserve(config(text, hints)) as server:
        with open_backend("triton", "repeat-1", url=server.url) as backend:
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr)[:, ::-1])
        given = {"hints": "order=bgr,output_order=bgr", "url": server.url}
        with open_backend("triton", "repeat-1", **given) as backend:
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))


@pytest.mark.parametrize("memory", ["auto", "on", "off"])
def test_tiles_of_a_picture_are_in_flight_together_and_equal_the_whole(
    server: Server, memory: str
) -> None:
    server.faults.together = 3
    picture = np.random.default_rng(0).random((64, 80, 3), np.float32)
    url = f"{server.url}?requests=3&shm={memory}"
    with Upscaler("repeat-1", url=url, tile=24, halo="exact") as upscaler:
        large = upscaler(picture)
        assert len(server.seen.registered) == (0 if memory == "off" else 3)
        assert not _memory()  # files are gone while the memory is in use
    np.testing.assert_array_equal(large, picture.repeat(4, axis=0).repeat(4, axis=1))
    assert server.seen.most_at_once == 3
    assert bool(server.seen.by_memory) == (memory != "off")
    assert not server.seen.registered


def test_pictures_of_several_threads_are_in_flight_together(server: Server) -> None:
    server.faults.together = 2
    picture = np.zeros((8, 8, 3), np.uint8)
    with Upscaler("repeat-1", url=server.url) as upscaler:
        threads = [threading.Thread(target=upscaler, args=(picture,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.seen.most_at_once > 1


def test_a_batch_is_sent_in_parts_that_the_model_accepts(server: Server) -> None:
    lr = sample_batch(6, 9, 11)
    with open_backend("triton", "repeat-1", url=server.url) as backend:
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert (server.seen.largest_batch, server.seen.requests) == (4, 2)


def test_the_connection_is_used_where_the_server_cannot_map_memory(
    server: Server, lr: Batch
) -> None:
    server.faults.maps_memory = False
    with open_backend("triton", "repeat-1", url=server.url) as backend:
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    with (
        open_backend("triton", "repeat-1", url=f"{server.url}?shm=on") as backend,
        pytest.raises(BackendError, match=r"shared memory can't be used .*remove shm=on"),
    ):
        backend.upscale(lr)
    assert not _memory()


def test_a_failed_connection_is_tried_again_with_new_memory(
    server: Server, lr: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend("triton", "repeat-1", url=f"{server.url}?requests=1") as backend:
        backend.upscale(lr)
        server.faults.away = 2
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
        server.restart()  # the memory of before is unknown to it
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert [record.message.count("trying again") for record in caplog.records] == [1, 1, 1]
    assert "Unable to find shared memory region" in caplog.records[2].message
    assert server.seen.by_memory == 3


def test_attempts_end_with_an_error_that_counts_them(server: Server, lr: Batch) -> None:
    with open_backend("triton", "repeat-1", url=f"{server.url}?retries=2&requests=1") as backend:
        server.faults.away = 100
        with pytest.raises(ServerAwayError, match=r"no Triton server answers .*\(3 attempts\)"):
            backend.upscale(lr)
    assert server.faults.away == 97


def test_a_late_answer_is_an_error_and_not_asked_for_again(server: Server, lr: Batch) -> None:
    with open_backend("triton", "repeat-1", url=f"{server.url}?timeout=0.3") as backend:
        server.faults.delay = 1.0
        with pytest.raises(ServerLateError, match=r"within 0.3 s; .*timeout=0.6.*--tile"):
            backend.upscale(lr)
    assert server.seen.requests == 1


def test_a_late_answer_never_reaches_the_memory_of_the_next_request(
    server: Server, lr: Batch
) -> None:
    url = f"{server.url}?timeout=2&requests=1&shm=on"
    with open_backend("triton", "repeat-1", url=url) as backend:
        server.faults.overtaken = threading.Barrier(2)
        with pytest.raises(ServerLateError):
            backend.upscale(lr)
        np.testing.assert_array_equal(backend.upscale(1 - lr), repeated(1 - lr))
    assert server.seen.by_memory == 2


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_is_away_is_reported_at_once(scheme: str) -> None:
    with pytest.raises(ServerAwayError, match=r"no Triton server answers.*check --url, or start"):
        open_backend("triton", "psnr", url=f"{scheme}://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_never_answers_is_reported(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}?timeout=0.3"
        with pytest.raises(BackendError, match=r"no answer|no Triton server answers"):
            open_backend("triton", "psnr", url=url)


def test_a_missing_model_is_reported_with_those_that_are_there(server: Server) -> None:
    with pytest.raises(
        BackendError,
        match=r"no model 'psnr' or 'psnr-2-fp16'; its models: other, repeat-1.*--triton",
    ):
        open_backend("triton", "psnr", steps=2, precision="fp16", url=server.url)
    server.not_ready["psnr-4"] = "no GPU"
    with pytest.raises(BackendError, match=r"model 'psnr-4' isn't ready: no GPU"):
        open_backend("triton", "psnr", url=server.url)


def test_a_file_names_the_model_that_was_made_of_it(server: Server, tmp_path: Path) -> None:
    with open_backend("triton", str(tmp_path / "repeat-1.onnx"), url=server.url) as backend:
        assert backend.info.model == "repeat-1"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": 4}, r"with 1 steps, asked for 4"),
        ({"precision": "fp16"}, r"is fp32, asked for fp16"),
        ({"hints": "order=bgr"}, r"describes itself, so hints have no effect"),
    ],
)
def test_options_that_the_model_contradicts_are_rejected(
    server: Server, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises((BackendError, HintsError), match=reason):
        open_backend("triton", "repeat-1", url=server.url, **options)


def test_results_of_a_wrong_size_are_rejected(server: Server, lr: Batch) -> None:
    with open_backend("triton", "repeat-1", url=f"{server.url}?shm=off") as backend:
        server.faults.scale = 2
        with pytest.raises(BackendError, match=r"output is float32 \(1, 3, 40, 48\); expected"):
            backend.upscale(lr)
        server.faults.names_no_output = True
        with pytest.raises(BackendError, match="returned no output 'sr'"):
            backend.upscale(lr)


def test_parameters_that_fit_no_export_are_rejected() -> None:
    with (
        kserve(config(FOREIGN, described())) as server,
        pytest.raises(ModelError, match=r"expected lr → sr, FP32 of rank 4: write"),
    ):
        open_backend("triton", "other", url=server.url)
    with (
        kserve(config(REPEAT, described() | {"agsr.scale": "99"})) as server,
        pytest.raises(ModelError, match="scale 99"),
    ):
        open_backend("triton", "repeat-1", url=server.url)


def test_a_server_without_memory_gets_smaller_tiles(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with Upscaler("repeat-1", url=server.url, halo="exact") as upscaler:
        server.faults.error = "onnx runtime error 6: Failed to allocate memory"
        with pytest.raises(MemoryError):
            upscaler(np.zeros((40, 40, 3), np.uint8))
    assert "out of memory; trying tiles of 20x20 pixels" in caplog.text


@pytest.mark.parametrize("whole", ["repeat-1", "missing", "different"])
def test_a_model_of_tiles_leaves_what_is_smaller_to_the_model_for_any_size(whole: str) -> None:
    text = REPEAT.replace("repeat-1", "tiles").replace("3, -1, -1", "3, 24, 24", 1)
    given = described(sizes=SizeRule(fixed=(24, 24)))
    tiles = config(text, given | {"agsr.whole_model": whole})
    different = config(REPEAT.replace("repeat-1", "different"), described(steps=2))
    picture = np.random.default_rng(0).random((40, 20, 3), np.float32)
    with (
        kserve(config(REPEAT, described()), tiles, different) as server,
        Upscaler("tiles", url=server.url, halo=4) as upscaler,
    ):
        assert upscaler.info.largest == (24, 24)
        assert upscaler(picture[:24]).shape == (96, 80, 3)
        large = upscaler(np.repeat(picture, 2, axis=1))
    np.testing.assert_array_equal(large, picture.repeat(8, axis=1).repeat(4, axis=0))
    assert server.seen.sizes["tiles"] == {(24, 24)}
    assert server.seen.sizes["repeat-1"] == ({(24, 20)} if whole == "repeat-1" else set())


def test_an_error_of_the_model_has_its_words(server: Server, lr: Batch) -> None:
    with open_backend("triton", "repeat-1", url=server.url) as backend:
        server.faults.error = "unexpected shape for input 'lr'"
        with pytest.raises(BackendError, match=r"model 'repeat-1' on an input of .*unexpected sh"):
            backend.upscale(lr)


def test_the_cpu_is_the_fallback_where_that_is_allowed() -> None:
    url = f"grpc://127.0.0.1:{free_port()}"
    with open_backend("triton", "psnr", steps=1, url=url, allow_fallback=True) as backend:
        assert backend.info.name == "ort"
