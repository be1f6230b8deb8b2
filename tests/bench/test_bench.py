from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Repeat

from agsr.bench import doctor as environment
from agsr.bench import installed
from agsr.bench.data.sets import find_set
from agsr.bench.scoring import QualityReport, evaluate
from agsr.bicubic import downscale
from agsr.engines.upscaler import Upscaler
from agsr.errors import DatasetError


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """``Mini`` with an HR folder, and ``val/Plain`` without one."""
    noise = np.random.default_rng(0).integers(0, 256, (47, 61, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 2)
    for folder in ("Mini/HR", "val/Plain"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "colour.png"), image)
    cv2.imwrite(str(tmp_path / "Mini/HR/grey.png"), image[..., 0])
    (tmp_path / "Mini/HR/readme.txt").touch()
    return tmp_path


def test_sets_are_found_by_name_path_and_variable(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [f.name for f in find_set("Mini", sets).files] == ["colour.png", "grey.png"]
    assert find_set("Plain", sets).name == "Plain"
    assert find_set(str(sets / "Mini")).files == find_set("Mini", sets).files
    monkeypatch.setenv("AGSR_DATA", str(sets))
    assert find_set("Mini").files == find_set("Mini", sets).files


def test_images_are_cropped_and_grey_stays_grey(sets: Path) -> None:
    colour, grey = find_set("Mini", sets)
    assert (colour.hr.shape, colour.lr.shape) == ((44, 60, 3), (11, 15, 3))
    assert (grey.hr.shape, grey.lr.shape) == ((44, 60), (11, 15))
    assert np.array_equal(grey.lr, downscale(grey.hr))


def test_missing_and_empty_sets_say_how_to_go_on(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such folder; --data names the one"):
        find_set("Mini", sets / "nowhere")
    with pytest.raises(DatasetError, match=r"no image set 'Set99'.*--data or AGSR_DATA"):
        find_set("Set99", sets)
    monkeypatch.delenv("AGSR_DATA", raising=False)
    with pytest.raises(DatasetError, match="AGSR_DATA is not set"):
        find_set("Set5")
    (sets / "Small").mkdir()
    cv2.imwrite(str(sets / "Small" / "a.png"), np.zeros((19, 40, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: 40x16 pixels; SSIM"):
        list(find_set("Small", sets))
    (sets / "Empty").mkdir()
    with pytest.raises(DatasetError, match="no images in this folder"):
        find_set("Empty", sets)


def test_report_holds_rows_mean_and_protocol(sets: Path) -> None:
    upscaler = Upscaler(backend=Repeat())
    rows = tuple(evaluate(upscaler, find_set("Mini", sets)))
    report = QualityReport(set="Mini", backend=upscaler.info, rows=rows)
    assert [row.image for row in rows] == ["colour", "grey"]
    assert all(row.scores.psnr < row.bicubic.psnr for row in rows)  # repeated pixels are worse
    found = json.loads(report.to_json())
    assert found["mean"]["psnr"] == pytest.approx((rows[0].scores.psnr + rows[1].scores.psnr) / 2)
    assert found["backend"]["name"] == "repeat"
    assert "BT.601" in found["protocol"]


def _commit_all(folder: Path) -> None:
    git = ("git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        subprocess.run([*git, *command], check=True)


def test_only_a_checkout_of_this_project_names_the_commit(tmp_path: Path) -> None:
    """An installation may lie in another project's repository, as in its virtual environment."""
    installed = tmp_path / "venv" / "agsr"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert environment.commit_of(installed) == ""
    _commit_all(tmp_path)
    assert environment.commit_of(installed) == ""
    assert environment.commit_of(tmp_path) == environment.output_of(
        "git", "-C", str(tmp_path), "rev-parse", "--short", "HEAD"
    )


def test_doctor_runs_what_it_reports() -> None:
    checks = {check.name: check for check in environment.backends()}
    assert checks["ort cpu"].ok
    assert "runs: CPUExecutionProvider, 4 steps" in checks["ort cpu"].found
    assert checks["torch cpu"].ok
    for name in ("openvino", "ort cuda"):
        check = checks[name]
        assert "runs:" in check.found if check.ok else check.advice or "can't" in check.found


def test_doctor_says_what_auto_would_take_and_what_would_add_the_rest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))  # nothing is measured there
    chosen = list(environment.choice())
    assert [check.ok for check in chosen] == [True]
    assert chosen[0].found.startswith(("ort (", "openvino ("))
    monkeypatch.setattr(environment, "missing_requirement", lambda _: "is not here")
    monkeypatch.setattr(environment, "find_spec", lambda _: None)
    monkeypatch.setattr(environment, "is_installed", lambda _: False)
    checks = {check.name: check for check in environment.backends()}
    gpus = ["trt", "ort cuda", "torch cuda"]
    others = ["ort dml", "ort coreml", "ort migraphx", "openvino gpu", "openvino npu"]
    assert list(checks) == [*gpus, "openvino", "ort cpu", "torch cpu", *others]
    assert not any(check.ok for check in checks.values())
    replaced = {"ort dml": "onnxruntime-directml", "ort migraphx": "onnxruntime-migraphx"}
    for name, check in checks.items():
        if name in replaced:  # they need another package instead of onnxruntime
            assert replaced[name] in check.advice
        else:
            assert check.advice.startswith("pip install"), name


def test_doctor_reports_an_unusable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    folder, times = environment.caches()
    assert folder.ok
    assert times.advice == "agsr doctor --measure"
    (tmp_path / "compiled").chmod(0o777)
    (refused,) = environment.caches()
    assert not refused.ok
    assert "AGSR_CACHE" in refused.found


def test_doctor_names_what_is_missing_and_what_clashes(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.0", "onnxruntime-gpu": "1.0"}
    monkeypatch.setattr(installed, "_version", lambda name: versions.get(name, ""))
    checks = {check.name: check for check in environment.packages()}
    assert checks["torch"].advice.startswith("pip install 'agsr[train]'")
    assert checks["av"].advice.startswith("pip install 'agsr[video]'")
    assert all(check.ok or check.advice for check in checks.values())
    assert not checks["onnxruntime clash"].ok
    assert "pip uninstall" in checks["onnxruntime clash"].advice
