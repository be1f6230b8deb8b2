"""``agsr models``, and weights named by a file of the user's folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from foreign_graphs import repeating
from PIL import Image

from agsr import pretrained
from agsr.cli import main
from agsr.contract import SizeRule
from agsr.engines.community import library, licences, measurements
from agsr.engines.community.licences import Provenance, provenance
from agsr.engines.community.measurements import Subject
from agsr.pretrained import is_path, resolve_weights, shipped_names

MakeFile = Callable[[str], Path]


@pytest.fixture
def folder(community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(community_file("compact-x2"), models / "2x-tiny.pth")
    (models / "broken.pth").write_bytes(b"PK\x03\x04")
    (models / "readme.txt").touch()
    monkeypatch.setenv("AGSR_MODELS", str(models))
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    return models


def test_shipped_networks_and_those_of_the_folder_are_listed(folder: Path) -> None:
    done = CliRunner().invoke(main, ["models", "--json"])
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert set(entries) == {*shipped_names(), "2x-tiny", "broken"}
    tiny = entries["2x-tiny"]
    assert (tiny["scale"], tiny["architecture"]) == (2, "RealESRGAN Compact")
    assert tiny["backends"][0] == "torch"
    assert tiny["problem"] == ""
    assert "truncated or damaged" in entries["broken"]["problem"]
    shown = CliRunner().invoke(main, ["models", "--models", str(folder)])
    assert "2x-tiny" in shown.stdout
    assert "×2" in shown.stdout


def test_only_installed_backends_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "is_runtime_installed", lambda name: name in ("ort", "torch"))
    entries = {entry.name: entry for entry in library.list_models(folder)}
    assert entries["psnr"].backends == ("ort", "torch")
    assert entries["2x-tiny"].backends == ("torch", "ort")


def test_a_file_is_loaded_once_and_then_read_from_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = library.describe(folder / "2x-tiny.pth")
    monkeypatch.setattr("agsr.engines.community.loader.load_network", None)
    assert library.describe(folder / "2x-tiny.pth") == first


def test_results_of_a_name_have_its_scale(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 7), (90, 120, 60)).save("a.png")
    done = CliRunner().invoke(main, ["infer", "a.png", "-w", "2x-tiny"])
    assert (done.exit_code, done.stdout) == (0, "a_x2.png\n"), done.output
    with Image.open("a_x2.png") as result:
        assert result.size == (18, 14)
    assert (folder / "2x-tiny.pth").is_file()


def test_doctor_shows_how_a_file_runs(folder: Path) -> None:
    sha256 = pretrained.sha256(folder / "2x-tiny.pth")
    found = {"halo": 8, "difference": 0.25}
    measurements.write("halos", Subject.of_file(sha256, "fp32", SizeRule()), found)
    done = CliRunner().invoke(main, ["doctor", "2x-tiny"])
    assert done.exit_code == 0, done.output
    assert "RealESRGAN" in done.stdout
    assert "halo: 8 pixels, 0.25 levels" in done.stdout
    broken = CliRunner().invoke(main, ["doctor", str(folder / "broken.pth")])
    assert broken.exit_code == 1
    assert "truncated or damaged" in broken.output
    assert CliRunner().invoke(main, ["doctor", "absent.pth"]).exit_code == 2


def test_doctor_shows_input_and_output_of_a_foreign_file(tmp_path: Path) -> None:
    path = repeating(tmp_path / "other.onnx", scale=3, layout="NHWC", size=(32, 48))
    done = CliRunner().invoke(main, ["doctor", str(path)])
    assert done.exit_code == 0, done.output
    assert "scale: ×3" in done.stdout
    assert "NHWC float32 RGB, white is 1, 48x32 pixels → " in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"), [("gna", "gan"), ("pnsr", "psnr"), ("2x-tny", "2x-tiny"), ("zzz", "")]
)
def test_a_mistyped_name_is_answered_with_the_nearest(folder: Path, typed: str, meant: str) -> None:
    assert folder.is_dir()
    message = pretrained.unknown_weights(typed)
    assert (f"did you mean '{meant}'?" in message) == ("did you mean" in message) == bool(meant)
    assert f"no weights named '{typed}'" in message


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["models", "--models", str(tmp_path / "absent")])
    assert done.exit_code == 1
    assert "not a folder of models" in done.stderr


def test_weights_are_found_by_the_name_of_a_file_in_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(folder / "2x-tiny.pth")
    assert [resolve_weights(name) for name in ("2x-tiny", "2x-tiny.pth")] == [path, path]
    for name in ("psnr", "absent", "readme.txt", "other/2x-tiny.pth", path):
        assert resolve_weights(name) == name
    assert not is_path("2x-tiny")
    monkeypatch.delenv("AGSR_MODELS")
    assert resolve_weights("2x-tiny") == "2x-tiny"


def test_licences_are_known_by_the_hash_of_the_file() -> None:
    known = provenance("a3d57001df7e856be6b4e3553d77be3b038609f34db5d41b43c3e6c67756a381")
    assert known is not None
    assert (known.licence, known.is_non_commercial) == ("MIT", False)
    assert Provenance("a", licence="CC BY-NC-SA 4.0").is_non_commercial
    assert provenance("0" * 64) is None


def test_licences_against_commerce_are_warned_of_and_unknown_ones_noted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"a": {"name": "a", "licence": "CC-BY-NC-4.0"}, "b": {"name": "b", "licence": "MIT"}}
    monkeypatch.setattr(licences, "_entries", lambda: entries)
    with caplog.at_level(logging.INFO, logger="agsr"):
        for sha256 in "abc":
            licences.note_licence(sha256, f"{sha256}.pth")
    assert [(r.levelname, r.getMessage().partition(":")[0]) for r in caplog.records] == [
        ("WARNING", "a.pth"),
        ("INFO", "c.pth"),
    ]


@pytest.mark.data
def test_the_entry_of_the_real_file_is_its_hash(data: Path) -> None:
    from agsr.pretrained import sha256

    assert provenance(sha256(data / "models" / "CRAFT_x4.pth")) is not None
