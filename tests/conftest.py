"""Fixtures shared by all tests: small seeded networks, a real photograph, the data folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cpus  # first: numpy and torch count the CPUs when they are loaded
import numpy as np
import pytest
import torch
import torchvision_operators as torchvision_operators  # before anything imports torchvision
from numpy.typing import NDArray
from stubs import Repeat as Repeat

from agsr.engines.runtimes.openvino_session import capabilities
from agsr.export import export_onnx
from agsr.image import read_rgb
from agsr.model.checkpoint import Checkpoint, save_checkpoint
from agsr.model.generator import Generator, GeneratorConfig
from agsr.model.registry import build, make_config
from agsr.system import cpu
from agsr.system.cpu import ISA_VARIABLE, multiplies_int8

pytest_plugins = ["browser", "command_line", "fake_trt", "object_store", "planning"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests load ONNX Runtime themselves, too

NEEDS_OPENVINO = pytest.mark.skipif(
    find_spec("openvino") is None, reason="no OpenVINO wheel for this platform"
)
CPU_BACKENDS = ["ort", pytest.param("openvino", marks=NEEDS_OPENVINO), "torch"]
INT8_BY_OPENVINO = pytest.mark.skipif(
    find_spec("openvino") is None or not multiplies_int8(),
    reason="no OpenVINO wheel for this platform, or the processor lacks VNNI",
)
BF16_BY_OPENVINO = pytest.mark.skipif(
    find_spec("openvino") is None or "BF16" not in capabilities(),
    reason="OpenVINO computes no bf16 on this processor",
)
ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "astronaut.png"
HELPERS = ROOT / "tests" / "helpers"
PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "tests", HELPERS)))
"""For tests that run themselves, or parts of them, in a process of their own."""

TINY = GeneratorConfig(
    width=8, growth=4, dense_layers=2, dense_blocks=1, mapping_width=4, mapping_pairs=1
)


def tiny_checkpoint(seed: int = 0) -> Checkpoint:
    """A small network with random weights, large enough to make its steps and halo matter."""
    torch.manual_seed(seed)
    generator = Generator(TINY)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.5)
    return Checkpoint(config=TINY, weights=generator.state_dict())


SMALL: dict[str, dict[str, int]] = {
    "srcnn": {"width1": 8, "width2": 4},
    "srgan": {"width": 8, "blocks": 2},
}


def small_baseline(name: str) -> Checkpoint:
    """A small baseline with random weights, and statistics of batch norm that matter."""
    torch.manual_seed(0)
    config = make_config(name, SMALL[name])
    network = build(name, config)
    state = {
        key: torch.rand_like(value) + 0.5 if "running" in key else value
        for key, value in network.state_dict().items()
        if value.is_floating_point()
    }
    return Checkpoint(model=name, config=config, weights=state)


def disk_full_half_way(path: Path, content: bytes) -> int:
    """Stands in for `Path.write_bytes`: half the bytes arrive, then the disk is full."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled or measured here stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGSR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def all_cpus() -> Iterator[None]:
    """Threads and processes that the test starts may run on every CPU, as without pytest-xdist."""
    with cpus.unbound():
        yield


Processor = Callable[..., None]


@pytest.fixture
def play_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processor:
    """Plays a processor with these features, whatever this one has; none means unknown."""

    def play(*features: str) -> None:
        line = f"flags : fpu {' '.join(features)}\n" if features else ""
        (tmp_path / "cpuinfo").write_text(line)
        monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.delenv(ISA_VARIABLE, raising=False)

    return play


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="session")
def checkpoint_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(checkpoint, path)
    return path


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that all processes of pytest-xdist share in this run, for one of them at a time.

    What takes seconds to make is looked for there first, and made if it is missing. A process that
    fails meanwhile must leave nothing that looks complete; see `agsr.system.atomic_file`.
    """
    folder, lock = factory.getbasetemp(), nullcontext()
    if "PYTEST_XDIST_WORKER" in os.environ:
        from filelock import FileLock  # machines with a GPU may lack it, as they lack pytest-xdist

        folder = folder.parent
        lock = FileLock(folder / f"{name}.lock")
    (folder / name).mkdir(exist_ok=True)
    with lock:
        yield folder / name


ExportTiny = Callable[..., Path]


@pytest.fixture(scope="session")
def onnx_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ExportTiny:
    """Exports of the tiny network by step count and precision, each made once in a run of tests.

    An export takes five seconds and more of processor time, nearly all of it for torch's tracing.
    """

    def export(steps: int, precision: Any = "fp32") -> Path:
        with shared_folder(tmp_path_factory, "exported") as folder:
            kind = "" if precision == "fp32" else f"-{precision}"
            path = folder / f"tiny-{steps}{kind}.onnx"
            if not path.exists():
                export_onnx(checkpoint, path, steps=steps, precision=precision)
            return path

    return export


MakeFile = Callable[[str], Path]


@pytest.fixture(scope="session")
def community_file(tmp_path_factory: pytest.TempPathFactory) -> MakeFile:
    """Weights of other projects' networks, by the names of `community_files.NETWORKS`."""
    from community_files import make  # spandrel takes seconds to load

    def find(name: str) -> Path:
        with shared_folder(tmp_path_factory, "community") as folder:
            path = folder / f"{name}.pth"
            return path if path.exists() else make(name, path)

    return find


@pytest.fixture(scope="session")
def exported_onnx(
    community_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that exports weights of another project once, for all processes."""
    from agsr.export.community import export_community

    def export(name: str, precision: Any = "fp32") -> Path:
        with shared_folder(tmp_path_factory, "community-onnx") as folder:
            path = folder / f"{name}-{precision}.onnx"
            if not path.exists():
                export_community(community_file(name), path, precision=precision)
            return path

    return export


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    return read_rgb(PHOTO)


@pytest.fixture(scope="session")
def data() -> Path:
    """The data folder. Named but absent is a failure; only not named is a reason to skip."""
    if "AGSR_DATA" not in os.environ:
        pytest.skip("AGSR_DATA is not set: it names the folder with Set5, Set14, ...")
    folder = Path(os.environ["AGSR_DATA"])
    assert folder.is_dir(), f"AGSR_DATA={folder} is not a folder"
    return folder
