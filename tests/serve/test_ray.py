"""The server on a Ray cluster of one computer: the same answers, jobs, a replica that dies.

A process runs the cluster, so that nothing of Ray remains in the tests' process.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import PYTHONPATH, Repeat, tiny_checkpoint
from serving import finished, picture, wait_for
from starlette.testclient import TestClient

from agsr.engines.open import check_request, open_backend
from agsr.errors import ConfigurationError
from agsr.model.checkpoint import save_checkpoint
from agsr.serve.app import create_app
from agsr.serve.models import ModelPool
from agsr.serve.options import parse_options
from agsr.serve.settings import ServeSettings

pytest.importorskip("ray", reason="ray has no wheel for this platform")

PROGRAM = """
import json, sys
from pathlib import Path
import httpx2
import ray
from ray import serve
from agsr.serve.ray import app
from serving import picture, wait_for

LONG = 200

def kill_an_upscaler():
    names = [found["name"] for found in ray.util.list_named_actors(all_namespaces=True)]
    (name,) = [name for name in names if "#upscalers#" in name]
    ray.kill(ray.get_actor(name, "serve"))

def start(attempts=4):
    # a busy computer takes more than the half minute that Ray allows its own processes
    try:
        ray.init(
            num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
            _temp_dir=sys.argv[1], _node_ip_address="127.0.0.1",
        )
        serve.start(
            proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}
        )
    except Exception:
        ray.shutdown()
        if attempts == 1:
            raise
        start(attempts - 1)

start()
try:
    serve.run(app({"cpus": "1", "max_replicas": "1", "steps": "1", "backend": "ort"}))
    client = httpx2.Client(base_url=f"http://127.0.0.1:{sys.argv[2]}", timeout=200)
    wait_for(lambda: client.get("/readyz").status_code == 200, LONG)
    at_once = client.post("/v1/upscale?name=a.png&scale=2", content=picture())
    bad = client.post("/v1/upscale?name=a.png", content=picture()[:60])
    job = client.post("/v1/jobs?name=b.png", content=picture(160, 160)).json()
    path = job["links"]["self"]
    wait_for(lambda: client.get(path).json()["state"] == "running", LONG)
    kill_an_upscaler()
    client.get(f"{path}/events")
    done = client.get(path).json()
    result = client.get(f"{path}/result").content.hex()
    foreign = client.get("/healthz", headers={"Host": "evil.example"}).status_code
    found = [at_once.content.hex(), bad.json(), done, result, foreign, client.get("/").status_code]
    Path(sys.argv[3]).write_text(json.dumps(found))  # Ray prints to stdout, too
finally:
    serve.shutdown()
    ray.shutdown()
"""


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process that still runs, and those that it started, which Ray's would outlive."""
    if process.poll() is None:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.communicate()


@pytest.mark.slow
def test_a_cluster_answers_like_a_server_and_survives_the_death_of_a_replica(
    tmp_path: Path,
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="r"))  # paths of sockets must be short
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(temporary), str(port), str(tmp_path / "found")],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "HOME": str(temporary)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        _end(process)
        shutil.rmtree(temporary, ignore_errors=True)
    assert process.returncode == 0, errors[-3000:]
    at_once, bad, job, result, foreign, page = json.loads((tmp_path / "found").read_text())
    settings = ServeSettings(spool=tmp_path, running={"steps": 1, "backend": "ort"})
    with TestClient(create_app(settings, open_backend), "http://localhost") as client:
        here = client.post("/v1/upscale?name=a.png&scale=2", content=picture())
        assert bytes.fromhex(at_once) == here.content
        here = client.post("/v1/upscale?name=b.png", content=picture(160, 160))
        assert bytes.fromhex(result) == here.content
    assert (bad["status"], bad["detail"][:7]) == (422, "a.png: ")
    assert (job["state"], job["result"]["name"]) == ("done", "b_x4.png")
    assert (foreign, page) == (421, 200)


class Local:
    """The handle of a deployment whose only replica lives in this process."""

    def __init__(self, upscalers: Any, deaths: int = 0) -> None:
        self._upscalers, self._deaths = upscalers, deaths
        self.cancelled = 0
        self.ready = SimpleNamespace(remote=lambda: SimpleNamespace(result=lambda: True))
        self.upscale = SimpleNamespace(remote=self._answers)

    def options(self, **_: object) -> Local:
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def _answers(self, asked: Any) -> Answers:
        return Answers(self, asked)


class Answers:
    """What a replica yields, one after the other."""

    def __init__(self, handle: Local, asked: Any) -> None:
        self._handle, self.cancel = handle, handle.cancel
        self._items = self._made(asked)

    def __iter__(self) -> Answers:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def _made(self, asked: Any) -> Iterator[Any]:
        from ray.exceptions import ActorDiedError

        if self._handle._deaths:
            self._handle._deaths -= 1
            yield 0.5
            raise ActorDiedError
        upscale = self._handle._upscalers.upscale

        async def collected() -> list[Any]:
            return [item async for item in upscale(asked)]

        yield from asyncio.run(collected())


def test_the_front_passes_on_progress_results_and_messages(tmp_path: Path) -> None:
    from agsr.serve.ray import Remote, Upscalers

    (tmp_path / "of upscalers").mkdir()
    running = {"steps": 1, "backend": "ort"}
    upscalers = Upscalers(ServeSettings(spool=tmp_path / "of upscalers", running=running))
    handle = Local(upscalers, deaths=3)
    app = create_app(ServeSettings(spool=tmp_path / "front"), remote=Remote(handle))
    with TestClient(app, "http://localhost") as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        first = client.post("/v1/upscale?name=a.png", content=picture(mode="RGBA"))
        again = client.post("/v1/upscale?name=a.png", content=picture(mode="RGBA"))
        assert first.content == again.content  # though three replicas died
        flat = client.post("/v1/upscale?name=a.png&format=jpg", content=picture(mode="RGBA"))
        assert flat.headers["agsr-warning"].startswith("a_x4.jpg: composited on white")
        bad = client.post("/v1/upscale?name=a.png", content=picture()[:60])
        assert (bad.status_code, bad.json()["detail"][:7]) == (422, "a.png: ")
        job = client.post("/v1/jobs?name=a.png&weights=gan&steps=1", content=picture()).json()
        assert finished(client, job)["result"]["name"] == "a_x4.png"
    assert handle.cancelled == 3  # the answers of the replicas that died
    (spool,) = (tmp_path / "of upscalers").iterdir()
    assert list(spool.iterdir()) == []


def test_options_come_from_arguments_and_the_environment() -> None:
    from agsr.serve.ray import parse

    environment = {"AGSR_TOKEN": "sesame", "AGSR_SERVE_CPUS": "4", "AGSR_SERVE_STEPS": "2"}
    given = {"steps": "3", "allow_hosts": "a.example,b.example", "ui": "false", "max-bytes": "9"}
    cluster, settings = parse(given, environment)
    assert (cluster.cpus, cluster.max_replicas, settings.workers) == (4, 4, 4)
    assert settings.running == {"steps": 3, "threads": 4}
    assert settings.allow_hosts == ("a.example", "b.example")
    assert (settings.token, settings.ui, settings.max_bytes) == ("sesame", False, 9)


def test_variables_of_kubernetes_are_ignored() -> None:
    from agsr.serve.ray import parse

    environment = {
        "AGSR_SERVE_SVC_SERVICE_HOST": "10.0.0.1",
        "AGSR_SERVE_SERVICE_PORT": "80",
        "AGSR_SERVE_PORT": "tcp://10.0.0.1:80",
        "AGSR_SERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
    }
    assert parse({}, environment) == parse({}, {})


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({"gpus": "1", "backend": "trt"}, None),
        ({"gpus": "0.5"}, None),
        ({"gpus": "1", "backend": "torch"}, None),
        ({"backend": "torch"}, None),
        ({"url": "grpc://127.0.0.1:8001"}, None),
        ({"backend": "ort"}, 3),
        ({}, 3),
    ],
)
def test_replicas_open_any_backend(given: dict[str, str], threads: int | None) -> None:
    from agsr.serve.ray import parse

    _, settings = parse({"cpus": "3"} | given, {})
    assert settings.running.get("threads") == threads
    asked = []

    def opened(*, backend: str = "auto", weights: str, **options: Any) -> Repeat:
        asked.append(options.get("threads"))
        check_request(backend, weights, **options)
        return Repeat()

    pool = ModelPool(settings, opened)
    with pool.upscaler(parse_options([], settings)):
        assert asked == [threads]
    pool.close()


def test_a_replica_runs_torch(tmp_path: Path) -> None:
    from agsr.serve.ray import Upscalers, parse

    _, settings = parse({"backend": "torch", "spool": str(tmp_path), "steps": "1"}, {})
    assert asyncio.run(Upscalers(settings).ready())


def test_other_weights_get_threads_only_where_they_can_be_set(tmp_path: Path) -> None:
    from agsr.serve.ray import parse

    other = tmp_path / "other.safetensors"
    save_checkpoint(tiny_checkpoint(), other)
    _, settings = parse({"cpus": "3", "offered": str(other)}, {})
    assert settings.running_for("psnr")["threads"] == 3
    assert "threads" not in settings.running_for(str(other))


def test_ray_ends_no_replica_that_does_a_long_job() -> None:
    from agsr.serve.ray import ClusterOptions, upscalers_for

    deployment = upscalers_for(ClusterOptions(gpus=0.5))
    assert deployment._deployment_config.graceful_shutdown_timeout_s >= 6 * 3600
    assert deployment.ray_actor_options is not None
    assert deployment.ray_actor_options["num_gpus"] == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replicas": "4"}, "no option named 'replicas'; known: min_replicas, max_replicas"),
        ({"port": "80"}, "no option named 'port'"),
        ({"cpus": "many"}, "cpus is 'many'; expected a whole number"),
        ({"ui": "maybe"}, "ui is 'maybe'; expected true or false"),
    ],
)
def test_wrong_options_of_a_cluster_are_explained(given: dict[str, str], said: str) -> None:
    from agsr.serve.ray import parse

    with pytest.raises(ConfigurationError, match=said):
        parse(given, {})
