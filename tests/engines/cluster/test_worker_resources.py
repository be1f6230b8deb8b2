"""What a worker of a cluster reserves, by the options of its network."""

from __future__ import annotations

from typing import Any

import pytest

from agsr.engines.cluster.request import WorkerResources, worker_resources
from agsr.engines.open import check_request
from agsr.errors import BackendRequestError

URL = "grpc://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("running", "gpus", "expected"),
    [
        ({}, 0, WorkerResources(4, 0, {"threads": 4})),
        ({"threads": 2}, 0, WorkerResources(2, 0, {"threads": 2})),
        ({"threads": 2, "backend": "ort"}, 8, WorkerResources(2, 0, {"threads": 2})),
        ({}, 8, WorkerResources(4, 1, {"threads": None})),
        ({"threads": 6}, 8, WorkerResources(6, 1, {"threads": None})),
        ({"threads": 6, "backend": "trt"}, 8, WorkerResources(6, 1, {"threads": None})),
        ({"threads": 6, "provider": "cuda"}, 0, WorkerResources(6, 1, {"threads": None})),
        (
            {"threads": 6, "backend": "torch", "device": "cuda"},
            8,
            WorkerResources(6, 1, {"threads": None}),
        ),
        ({"threads": 6, "backend": "torch"}, 8, WorkerResources(6, 0, {"threads": None})),
        ({"threads": 2, "url": URL}, 8, WorkerResources(2, 0, {"threads": None})),
        ({"backend": "triton", "url": URL}, 0, WorkerResources(4, 0, {"threads": None})),
    ],
)
def test_gpus_and_threads_follow_the_place(
    running: dict[str, Any], gpus: float, expected: WorkerResources
) -> None:
    found = worker_resources("psnr", running, cpus=16, cluster_gpus=gpus)
    assert found == expected
    options = {**running, **found.options}
    check_request(options.pop("backend", "auto"), "psnr", **options)


def test_a_small_node_holds_a_worker() -> None:
    assert worker_resources("psnr", {}, cpus=2, cluster_gpus=0).cpus == 2
    assert worker_resources("psnr", {}, cpus=2, cluster_gpus=1).cpus == 2


def test_numbered_devices_are_rejected() -> None:
    with pytest.raises(BackendRequestError, match="device cuda:1 contradict one another"):
        worker_resources("psnr", {"device": "cuda:1"}, cpus=4, cluster_gpus=2)
