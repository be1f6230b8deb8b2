"""``agsr infer --ray`` on a cluster of several nodes whose parts are killed while it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PHOTO, ROOT
from PIL import Image

from agsr.cli import main

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

FILES = 24
SIZE = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, a file that is none, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("cluster")
    photo = Image.open(PHOTO)
    (folder / "in" / "deep").mkdir(parents=True)
    for number in range(FILES):
        path = folder / "in" / ("deep" if number % 3 else "") / f"{number}.png"
        photo.crop((number, 0, number + 40, 40)).save(path)
    (folder / "in" / "text.png").write_text("not an image")
    command = ["-r", str(folder / "in"), "-o", str(folder / "alone"), "-j", "1"]
    assert CliRunner().invoke(main, ["infer", *command]).exit_code == 1
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two nodes of one CPU each; more can be added."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        folder = tempfile.mkdtemp(prefix="r")  # paths of sockets must be short
        found = _started(folder)
        yield found
        found.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: str, attempts: int = 6) -> Any:
    """Start the cluster; on a busy machine, Ray gives up after 30 s."""
    from ray.cluster_utils import Cluster

    found = Cluster()
    try:
        found.add_node(num_cpus=0, include_dashboard=False, temp_dir=folder, **SIZE)
        for _ in range(2):
            found.add_node(num_cpus=1, **SIZE)
    except Exception:
        found.shutdown()
        if attempts == 1:
            raise
        return _started(folder, attempts - 1)
    return found


def _with_another(cluster: Any, attempts: int = 4) -> Any:
    """Add a node of one CPU."""
    try:
        return cluster.add_node(num_cpus=1, **SIZE)
    except Exception:
        if attempts == 1:
            raise
        return _with_another(cluster, attempts - 1)


class Driver:
    """The command line in a process, whose output is read while it runs."""

    def __init__(self, album: Path, address: str, *arguments: str) -> None:
        command = ["-r", "in", "--ray", address, "-j", "1", "-v", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agsr", "infer", *command],
            cwd=album,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.messages: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.messages.extend(iter(self.process.stderr.readline, ""))

    def results(self, count: int) -> list[str]:
        """Wait for so many results, or the end."""
        assert self.process.stdout is not None
        lines = (self.process.stdout.readline().strip() for _ in range(count))
        return [line for line in lines if line]

    def workers(self) -> list[tuple[str, int]]:
        """Beginning of the node's name, and process, of each worker."""
        text = "".join(self.messages)
        found = re.findall(r"worker \d+: node (\w+), process (\d+)", text)
        return [(node, int(pid)) for node, pid in found]

    def first_worker(self) -> tuple[str, int]:
        """Wait for the message about the first worker, which comes before its results."""
        for _ in range(2400):
            if workers := self.workers():
                return workers[0]
            time.sleep(0.1)
        raise TimeoutError("".join(self.messages))

    def end(self) -> str:
        self.results(10 * FILES)
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return "".join(self.messages)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "agsr-manifest"
    }


def _rows(folder: Path) -> list[dict[str, Any]]:
    parts = sorted((folder / "agsr-manifest").iterdir())
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def test_actors_and_nodes_may_die(album: Path, cluster: Any) -> None:
    lost = _with_another(cluster)
    driver = Driver(album, cluster.address, "-o", "killed")
    lines = driver.results(3)
    doomed, (_, pid) = lost.node_id[:8], driver.first_worker()
    os.kill(pid, signal.SIGKILL)
    lines += driver.results(3)
    cluster.remove_node(lost, allow_graceful=False)
    lines += driver.results(FILES)
    messages = driver.end()
    assert driver.process.returncode == 1, messages
    assert _contents(album / "killed") == _contents(album / "alone")
    assert len(lines) == len(set(lines)) == FILES
    rows = _rows(album / "killed")
    assert Counter(row["status"] for row in rows) == {"done": FILES, "failed": 1}
    assert len({row["source"] for row in rows}) == FILES + 1
    sizes = {row["target"]: row["bytes"] for row in rows if row["status"] == "done"}
    assert sizes == {line: (album / line).stat().st_size for line in lines}
    others = driver.workers()[1:]
    deaths = re.findall(r"worker \d+ died", messages)
    assert len(deaths) >= 1 + any(node == doomed for node, _ in others)
    assert f"\n{FILES} upscaled, 1 failed; " in messages


def test_a_killed_driver_goes_on(album: Path, cluster: Any) -> None:
    first = Driver(album, cluster.address, "-o", "again")
    done = first.results(4)
    first.process.kill()
    first.end()
    before = _contents(album / "again")
    assert len(done) == 4
    second = Driver(album, cluster.address, "-o", "again", "--skip-existing")
    rest = second.results(FILES)
    messages = second.end()
    assert second.process.returncode == 1, messages
    assert _contents(album / "again") == _contents(album / "alone")
    skipped = re.search(r"(\d+) already there", messages)
    assert skipped is not None
    assert int(skipped[1]) + len(rest) == FILES
    assert not set(rest) & {f"again/{name}" for name in before}
    assert Counter(row["status"] for row in _rows(album / "again"))["failed"] == 1
