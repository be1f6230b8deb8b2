"""Threads follow the CPUs that a process may use, not those that the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from agsr.system import control_groups
from agsr.system import cpu as processor
from agsr.system.control_groups import cpu_quotas, usable_cpus
from agsr.system.cpu import thread_count
from agsr.system.process_settings import command_process

pytestmark = pytest.mark.usefixtures("all_cpus")


def _files(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/a/b", "a/cpu.max": "150000 100000"}, [2]),
        ({"proc/self/cgroup": "0::/a/b", "a/b/cpu.max": "max 100000"}, []),
        ({"proc/self/cgroup": "0::/", "cpu.max": "50000 100000"}, [1]),
        ({"proc/self/cgroup": "0::/a", "cpu.max": "400000 100000", "a/cpu.max": "9 3"}, [4, 3]),
        (
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/x\n",
                "cpu/cpu.cfs_quota_us": "300000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            [3],
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            [],
        ),
        ({"proc/self/cgroup": "0::/", "cpu.max": "damaged"}, []),
        ({}, []),
    ],
)
def test_quotas_of_control_groups_are_found(
    tmp_path: Path, files: dict[str, str], cpus: list[int]
) -> None:
    groups = {f"sys/fs/cgroup/{k}": v for k, v in files.items() if not k.startswith("proc")}
    root = _files(tmp_path, groups | {k: v for k, v in files.items() if k.startswith("proc")})
    assert list(cpu_quotas(root)) == cpus


def test_the_minimum_of_affinity_and_quotas_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_groups, "_affinity_count", lambda: 64)
    monkeypatch.setattr(control_groups, "cpu_quotas", lambda: iter([8, 3]))
    assert usable_cpus() == 3
    assert [thread_count(asked) for asked in (None, 1, 2, 99)] == [3, 1, 2, 3]
    monkeypatch.setattr(control_groups, "_affinity_count", lambda: 2)
    assert usable_cpus() == 2


def test_commands_limit_libraries_that_count_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(processor, "usable_cpus", lambda: 3)
    with command_process():
        assert [os.environ[name] for name in names] == ["3", "3"]
    assert not set(names) & os.environ.keys()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with command_process():
        assert os.environ["OMP_NUM_THREADS"] == "2"  # the user's
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_torch_is_limited_while_it_runs(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import torch

    from agsr.engines.runtimes import torch_backend, torch_module

    seen, before = list[int](), torch.get_num_threads()
    monkeypatch.setattr(torch_module, "thread_count", lambda _: 1)
    backend = torch_backend.TorchBackend(checkpoint_file, steps=1)
    network = backend._network
    backend._network = lambda *given: [seen.append(torch.get_num_threads()), network(*given)][1]  # type: ignore[assignment]
    torch.set_num_threads(2)
    try:
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(find_spec("openvino") is None, reason="no wheel for this platform")
def test_openvino_is_limited(onnx_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agsr.engines.runtimes import openvino_session

    monkeypatch.setattr(openvino_session, "is_limited", lambda: True)
    monkeypatch.setattr(openvino_session, "thread_count", lambda _: 1)
    session = openvino_session.open_compiled(onnx_file(1))
    assert int(session._compiled.get_property("INFERENCE_NUM_THREADS")) == 1


def _encoding(encoder: str, options: tuple[tuple[str, str], ...] = ()) -> Any:
    from fractions import Fraction

    from agsr.video.encoder import Encoding

    return Encoding(
        encoder=encoder,
        options=options,
        **{"width": 96, "height": 96, "pix_fmt": "yuv420p", "depth": 8, "matrix": 1},
        **{"full_range": False, "primaries": 1, "transfer": 1, "aspect": None},
        **{"time_base": Fraction(1, 25), "rate": Fraction(25)},
    )


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_encoders_are_limited(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from agsr.video import encoder as video_encode
    from agsr.video.reader import av

    monkeypatch.setattr(video_encode, "is_limited", lambda: True)
    monkeypatch.setattr(video_encode, "thread_count", lambda _: 3)
    options = (("x265-params", "log-level=error"),) if encoder == "libx265" else ()
    encoding = _encoding(encoder, options)
    container = av().open(io.BytesIO(), "w", format="matroska")
    stream = encoding.add_to(container)
    assert stream.codec_context.thread_count == 3
    given = {**stream.codec_context.options}
    expected = {
        "libx265": {"x265-params": "log-level=error:pools=3"},
        "libsvtav1": {"svtav1-params": "lp=3"},
    }
    assert given == expected.get(encoder, {})
    container.start_encoding()  # the encoder takes the option


def test_x264_runs_as_many_threads_in_a_worker_as_in_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its output depends on their number."""
    import io

    from agsr.video import encoder as video_encode
    from agsr.video.reader import av

    monkeypatch.setattr(video_encode, "is_limited", lambda: True)
    cpus = 8
    monkeypatch.setattr(video_encode, "thread_count", lambda _: cpus)
    encoding = replace(_encoding("libx264"), height=480)
    small = replace(encoding, height=40)
    threads, cpus = encoding.threads, 2
    assert (threads, small.threads, encoding.threads) == (8, 1, 2)
    assert replace(encoding, encoder="libx265").threads == 0
    container = av().open(io.BytesIO(), "w", format="matroska")
    assert encoding.add_to(container, threads).codec_context.thread_count == 8
    assert encoding.add_to(container).codec_context.thread_count == 2


BOUND = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from agsr.system.control_groups import usable_cpus
from agsr.engines.runtimes.onnxruntime_session import open_session
from pathlib import Path
import sys
session = open_session(Path(sys.argv[1]), "cpu")
print(usable_cpus(), session.get_session_options().intra_op_num_threads)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's call")
def test_a_process_bound_to_one_cpu_runs_one_thread(onnx_file: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUND, str(onnx_file(1))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1"]
