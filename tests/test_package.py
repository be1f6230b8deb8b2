"""The package as a whole: layout, import cost, start-up time."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import PHOTO, ROOT

import agsr
from agsr.bench.installed import PACKAGES
from agsr.cli import main
from agsr.pretrained import find_onnx
from agsr.system.cache_dir import cache_folder

ROOMS = ("export", "engines", "bench")

PUBLIC = (
    "agsr",
    "agsr.backend",
    "agsr.bench",
    "agsr.bicubic",
    "agsr.contract",
    "agsr.engines",
    "agsr.errors",
    "agsr.export",
    "agsr.image",
    "agsr.metrics",
    *(f"agsr.metrics.{name}" for name in ("lpips", "luma", "psnr_ssim")),
    "agsr.system.progress",
    "agsr.tiling",
)
"""Modules of the public API."""


def test_every_package_is_listed_for_the_wheel() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listing = text.partition("\npackages = [")[2].partition("]")[0]
    listed = set(re.findall(r'"(agsr[\w.]*)"', listing))
    folders = {"agsr", *(f"agsr.{room}" for room in ROOMS)}
    for top in ("agsr", *ROOMS):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if not any(part.is_symlink() for part in init.parents):
                folders.add(".".join(parts if parts[0] == "agsr" else ("agsr", *parts)))
    assert listed == folders


def test_every_data_file_is_listed_for_the_wheel() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = dict(re.findall(r'^"?([\w.]+)"? = (\[.*\])$', text, re.M))
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            package = ".".join(("agsr", *init.parent.relative_to(ROOT).parts))
            files = (p.name for p in init.parent.iterdir() if p.is_file() and p.suffix != ".py")
            for name in files:
                assert f'"{name}"' in listed[package], f"{package}: {name}"


def test_the_doctor_names_the_extras_that_install_a_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    parts = re.split(r"^(\w+) = ", section, flags=re.M)[1:]
    extras = dict(zip(parts[::2], parts[1::2], strict=True))
    for name, extra in PACKAGES.items():
        bringing = [extra for extra, names in extras.items() if re.search(rf'"{name}[>[]', names)]
        assert extra in bringing if extra else set(bringing) <= {"dev"}, f"{name}: {bringing}"


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_listed_and_have_an_example(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__doc__
    for name in found.__all__:
        if not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
        item = getattr(found, name)
        if not inspect.isclass(item) and not inspect.isfunction(item):
            continue
        assert inspect.getdoc(item), f"{module}.{name} has no docstring"
        if not issubclass(item if inspect.isclass(item) else object, BaseException):
            assert ">>> " in str(item.__doc__), f"{module}.{name} has no example"


def test_every_public_definition_is_listed() -> None:
    for module in PUBLIC:
        found = importlib.import_module(module)
        defined = {
            name
            for name, item in vars(found).items()
            if getattr(item, "__module__", None) == module and not name.startswith("_")
        }
        assert defined <= set(found.__all__), module


def test_names_that_do_not_exist_are_rejected() -> None:
    with pytest.raises(AttributeError, match="module 'agsr' has no attribute 'Upscalar'"):
        agsr.Upscalar  # noqa: B018


def test_links_make_the_checkout_importable() -> None:
    for room in ROOMS:
        link = ROOT / "agsr" / room
        assert link.is_symlink()
        assert os.readlink(link) == f"../{room}"  # noqa: PTH115


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, agsr, agsr.cli;"
        "agsr.AgsrError, agsr.OutputSize(scale=2);"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'cv2', 'numpy', 'rich'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_small_photo_loads_only_what_it_needs(tmp_path: Path) -> None:
    words = ["infer", str(PHOTO), "-o", str(tmp_path / "x.png"), "--steps", "1", "-b", "ort"]
    code = (
        "import sys; from agsr.cli import main\n"
        f"main({words!r}, standalone_mode=False)\n"
        "heavy = {'av', 'cv2', 'email', 'onnx', 'psutil', 'rich', 'spandrel', 'torch'} | {"
        "'PIL.TiffImagePlugin', 'importlib.metadata'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_costs_little_more_than_click_itself() -> None:
    click = [sys.executable, "-c", "import click"]
    assert _cost([sys.executable, "-m", "agsr", "--help"], click) < 4  # 1.7 in 2026


@pytest.mark.slow
def test_a_small_image_costs_little_more_than_its_network(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, onnxruntime as ort\n"
        "session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "session.run(None, {'lr': numpy.zeros((1, 3, 128, 128), numpy.float32)})"
    )
    network = [sys.executable, "-c", code, str(find_onnx("psnr", 4))]
    infer = [sys.executable, "-m", "agsr", "infer", str(PHOTO), "-o", str(tmp_path / "x.png")]
    assert _cost([*infer, "--backend", "ort"], network) < 2.5  # 1.45 in 2026


def _cost(command: list[str], reference: list[str], runs: int = 5) -> float:
    """Processor time of a command, start included, as a multiple of another's; the least of each.

    Run in turns. Unlike the time on the clock it grows little with what else runs.
    """
    times = [(_processor_time(command), _processor_time(reference)) for _ in range(runs)]
    mine, other = (min(column) for column in zip(*times, strict=True))
    return mine / other


def _processor_time(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_example_and_verification_use_the_same_photo() -> None:
    assert PHOTO.read_bytes() == (ROOT / "export" / "sample.png").read_bytes()


def test_readme_commands_are_those_that_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("install -c constraints.txt '.[cpu]'", "infer examples/astronaut.png"):
        assert command in readme
    assert "install -c constraints.txt -e '.[dev]'" in readme
    for extra in ("'.[cpu]'", "-e '.[dev]'"):
        assert f"install --quiet -c constraints.txt {extra}" in ci


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs"])
def test_links_between_documents_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for document in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"


GPU_MACHINE = """
import functools, importlib.machinery, sys
import pytest

find = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {absent!r} else find(name, path, target)

importlib.machinery.PathFinder.find_spec = functools.partial(find_spec)
sys.exit(pytest.main("--collect-only -q -p no:cacheprovider tests/engines/test_gpu.py".split()))
"""
"""Collects the GPU tests as on a machine with few packages."""


def test_gpu_tests_are_collected_where_few_packages_are_installed() -> None:
    absent = ["av", "pooch", "pyvips", "tritonclient", "tensorrt", "tensorrt_rtx", "openvino"]
    absent += ["pycuda", "tifffile", "matplotlib", "filelock", "pillow_heif", "selenium"]
    command = [sys.executable, "-c", GPU_MACHINE.format(absent=absent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("captured_copy", "free_memory", "[cuda.bindings]", "[pycuda]", "[torch-options0"):
        assert part in done.stdout


def test_users_without_a_home_folder_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers: the cache is among the temporary files, private to the user."""

    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    for variable in ("AGSR_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", fail)
    monkeypatch.setattr(Path, "expanduser", fail)
    done = CliRunner().invoke(main, ["cache", "list"])
    assert done.exit_code == 0, done.output
    assert cache_folder() == Path(tempfile.gettempdir(), f"agsr-{os.getuid()}")
