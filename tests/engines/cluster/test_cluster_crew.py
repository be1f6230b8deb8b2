"""The first worker of a cluster, with a stand-in for Ray: its start, and what it died of."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from agsr.engines.cluster import connection, crew
from agsr.engines.cluster.crew import ClusterCrew
from agsr.engines.cluster.request import ClusterRequest
from agsr.errors import BackendError

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")


class Rayless:
    """A cluster of one node whose workers end as the test asks."""

    def __init__(self, error: Exception, cpus: int = 2) -> None:
        import ray.exceptions

        self.exceptions = ray.exceptions
        self.error, self.cpus = error, cpus
        self.starts, self.left = True, 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "a", "Resources": {"CPU": self.cpus}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **_: object) -> Any:
        def answer(name: str) -> Any:
            return SimpleNamespace(remote=lambda *_: name)

        handle = SimpleNamespace(open=answer("opening"), __ray_ready__=answer("started"))
        return lambda _: SimpleNamespace(remote=lambda *_: handle)

    def wait(self, references: list[str], timeout: float | None = None) -> Any:
        if timeout is not None and not self.starts:
            return [], references
        return references, []

    def get(self, reference: str) -> Any:
        assert reference == "opening"
        raise self.error

    def kill(self, *_: object, **__: object) -> None:
        pass

    def shutdown(self) -> None:
        self.left += 1


def _crew(monkeypatch: pytest.MonkeyPatch, ray: Rayless, is_own: bool = True) -> ClusterCrew:
    monkeypatch.setattr(crew, "connect", lambda _: (ray, is_own))
    return ClusterCrew(ClusterRequest("auto", 1, 1), "psnr", {"threads": 1})


def _task_error() -> Exception:
    from ray.exceptions import RayTaskError

    return RayTaskError("open", "traceback", OSError("the disk is full"))


def _creation_error() -> Exception:
    from ray.exceptions import ActorDiedError, RayTaskError

    cause = RayTaskError("__init__", "a traceback\nImportError: no numpy", ImportError("no numpy"))
    return ActorDiedError(cause)


def _memory_error() -> Exception:
    from ray.exceptions import OutOfMemoryError

    return OutOfMemoryError("Task was killed due to the node running low on memory.\nMore.")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_task_error, "worker 4 failed: the disk is full"),
        (_creation_error, "worker 4 died: ImportError: no numpy"),
        (_memory_error, "worker 4 died: Task was killed due to the node running low on memory"),
    ],
)
def test_the_cause_of_a_death_is_reported(
    made: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _crew(monkeypatch, Rayless(made()))
    with pytest.raises(BackendError, match=f"first worker can't be opened: {said}"):
        found.open()


def test_a_worker_that_waits_for_room_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray = Rayless(_task_error())
    ray.starts = False
    with caplog.at_level(logging.WARNING), pytest.raises(BackendError):
        _crew(monkeypatch, ray).open()
    waiting = "worker 1 has not started in 20 s: it needs 1 CPU and 0 GPUs on one node, and the"
    assert f"{waiting} cluster has 1 CPU and 0 GPUs free" in caplog.text


@pytest.mark.parametrize("is_own", [True, False])
def test_only_its_own_connection_is_closed(is_own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Rayless(_task_error())
    _crew(monkeypatch, ray, is_own).close()
    assert ray.left == is_own
    without_room = Rayless(_task_error(), cpus=0)
    monkeypatch.setattr(crew, "connect", lambda _: (without_room, is_own))
    with pytest.raises(BackendError, match="no node has 1 CPU and 0 GPUs for a worker"):
        ClusterCrew(ClusterRequest("auto"), "psnr", {"threads": 1})
    assert without_room.left == is_own


def test_the_callers_connection_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setattr(connection, "require", lambda *_, **__: joined)
    assert connection.connect("auto") == (joined, False)
