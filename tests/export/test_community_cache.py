"""ONNX files that are made of other projects' weights at first use, and cached."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx_metadata import metadata_of

from agsr.engines.community import exported
from agsr.engines.community.exported import cached_path, exported_file
from agsr.engines.community.loader import load_network
from agsr.engines.open import open_backend
from agsr.errors import (
    BackendError,
    BackendRequestError,
    ModelError,
)

MakeFile = Callable[[str], Path]
Exported = Callable[..., Path]


@pytest.fixture
def fake_export(monkeypatch: pytest.MonkeyPatch, exported_onnx: Exported) -> list[list[str]]:
    """Stands in for the process of an export: copies a file made before."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        calls.append(command)
        shutil.copy(exported_onnx("compact"), command[-1])
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(exported.subprocess, "run", run)
    return calls


def test_other_backends_run_a_cached_export(
    community_file: MakeFile,
    fake_export: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    path = community_file("compact")
    for _ in range(2):
        with open_backend("ort", str(path)) as backend:
            assert backend.info.summary.startswith("ort (CPUExecutionProvider), RealESRGAN Compact")
    assert len(fake_export) == 1
    assert "exporting it to ONNX for ort:cpu, once" in caplog.text
    assert cached_path(path, "fp32").is_file()
    assert cached_path(path, "fp16") != cached_path(path, "fp32")


def changed(path: Path, change: dict[str, str]) -> None:
    """Rewrite an export with other properties."""
    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, properties | change)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"agsr.weights_hash": "0" * 64}, "its weights is '0+', expected"),
        ({"agsr.scale": "2"}, "its scale is 2, expected 4"),
        ({"agsr.architecture": "DAT"}, "its architecture is 'DAT', expected 'RealESRGAN Compact'"),
        ({"agsr.precision": "fp16"}, "its precision is 'fp16', expected 'fp32'"),
        ({"agsr.config": '{"channels": 1}'}, "its channels is 1, expected 3"),
        ({"agsr.scale": "none"}, "invalid metadata: .*'none'"),
    ],
)
def test_a_cached_export_of_something_else_is_made_again(
    community_file: MakeFile,
    fake_export: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    load_network(community_file("compact"))  # its properties are cached
    path = exported_file(community_file("compact"), None, "ort")
    changed(path, change)
    for _ in range(2):
        assert exported_file(community_file("compact"), None, "ort") == path
    assert len(fake_export) == 2
    assert re.search(f"its cached export is not used: .*{reason}", caplog.text)
    assert metadata_of(path).architecture == "RealESRGAN Compact"


def test_a_failed_export_is_an_error_with_its_reason(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    done = type("Done", (), {"returncode": 1, "stderr": "warning: a\nError: it can't be\n"})
    monkeypatch.setattr(exported.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(ModelError, match=r"^it can't be$"):
        exported_file(community_file("compact"), None, "ort")


def test_the_process_of_an_export_writes_the_file(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From weights that are a link, into a cache named from here, beside modules of others."""
    from conftest import HELPERS

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import torchvision_operators")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{HELPERS}")
    monkeypatch.setenv("AGSR_CACHE", "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache" / "community").mkdir(mode=0o700, parents=True)
    for folder in (tmp_path, tmp_path / "cache" / "community"):
        (folder / "click.py").write_text("raise SystemExit('it was imported')")
    Path("x1.pth").symlink_to(shutil.copy(community_file("compact-x1"), tmp_path / "blob"))
    path = exported_file(Path("x1.pth"), None, "ort")
    assert metadata_of(path).scale == 1
    assert path.is_relative_to(tmp_path / "cache")


def test_a_cache_that_others_can_write_to_is_rejected(
    community_file: MakeFile,
    fake_export: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    exported_file(community_file("compact"), None, "ort")
    (tmp_path / "community").chmod(0o777)
    with pytest.raises(BackendError, match="private folder"):
        exported_file(community_file("compact"), None, "ort")
    assert len(fake_export) == 1


def test_a_wrong_request_of_an_export_stays_one(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    done = type("Done", (), {"returncode": 2, "stderr": "Usage: agsr\n\nError: no fp16\n"})
    monkeypatch.setattr(exported.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(BackendRequestError, match=r"^no fp16$"):
        exported_file(community_file("compact"), "fp16", "ort")
