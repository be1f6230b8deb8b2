"""Files that are made of shipped weights at first use: their bytes, and the cache they lie in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from conftest import PHOTO, ROOT, TINY
from generators import random_checkpoint
from PIL import Image

from agsr.assembly import cached
from agsr.assembly.requested import Blend
from agsr.assembly.weights import read_generator, to_safetensors
from agsr.cli import main
from agsr.contract import Precision
from agsr.engines.open import open_backend
from agsr.engines.request import Request
from agsr.engines.weights_file import Kind, declared_scale, kind_of
from agsr.errors import CheckpointError, ModelError, UnknownWeightsError, UnshippedError
from agsr.export import export_onnx
from agsr.export.verify import run_file, sample_batch
from agsr.model.checkpoint import blend, load_checkpoint, save_checkpoint
from agsr.pretrained import (
    WEIGHTS_FOLDER,
    default_steps,
    find_checkpoint,
    find_onnx,
    onnx_name,
    resolve_weights,
    shipped_names,
)

MANIFEST = json.loads((WEIGHTS_FOLDER / "manifest.json").read_text())


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "assembled"


@pytest.mark.parametrize("name", shipped_names())
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_files_have_the_bytes_that_were_measured(name: str, precision: Precision) -> None:
    for steps in range(1, 7):
        content = find_onnx(name, steps, precision).read_bytes()
        expected = MANIFEST["assembled"][onnx_name(name, steps, precision)]
        assert hashlib.sha256(content).hexdigest() == expected


def test_the_manifest_lists_what_is_shipped() -> None:
    shipped = {p.name for p in WEIGHTS_FOLDER.iterdir()} - {"manifest.json", "LICENSE"}
    assert shipped == set(MANIFEST["files"])
    assert all(onnx_name(n, default_steps(n), "fp32") in shipped for n in shipped_names())
    assert sum(p.stat().st_size for p in WEIGHTS_FOLDER.iterdir()) < 12e6


def test_an_export_writes_the_same_file(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(find_checkpoint("psnr"))
    export_onnx(checkpoint, tmp_path / "a.onnx", steps=2, precision="fp16")
    assert (tmp_path / "a.onnx").read_bytes() == find_onnx("psnr", 2, "fp16").read_bytes()


@pytest.mark.parametrize(("share", "precision"), [(0.3, "fp32"), (0.75, "fp16")])
def test_a_blend_is_the_exported_blend(tmp_path: Path, share: float, precision: Precision) -> None:
    ends = (load_checkpoint(find_checkpoint(name)) for name in ("psnr", "gan"))
    export_onnx(blend(*ends, share), tmp_path / "a.onnx", steps=1, precision=precision)
    made = find_onnx(f"psnr:gan:{share}", 1, precision)
    assert made.read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_the_ends_of_a_blend_are_the_weights_themselves() -> None:
    for share, name in ((0, "psnr"), (1, "gan")):
        assert find_onnx(f"psnr:gan:{share}", 4).read_bytes() == find_onnx(name, 4).read_bytes()


def test_a_blend_runs_on_torch_too() -> None:
    lr = sample_batch(1, 9, 12)
    with (
        open_backend("torch", "psnr:gan:0.5", steps=1) as trained,
        open_backend("ort", "psnr:gan:0.5", steps=1) as assembled,
    ):
        assert trained.info.weights_hash == assembled.info.weights_hash
        np.testing.assert_allclose(trained.upscale(lr), assembled.upscale(lr), atol=1e-5)


def test_a_blend_of_two_files(tmp_path: Path, checkpoint_file: Path) -> None:
    save_checkpoint(random_checkpoint(TINY, seed=1), tmp_path / "b.safetensors")
    weights = f"{checkpoint_file}:{tmp_path / 'b.safetensors'}:0.25"
    assert kind_of(weights) is Kind.SHIPPED
    checkpoint = load_checkpoint(find_checkpoint(weights))
    ends = [load_checkpoint(path) for path in (checkpoint_file, tmp_path / "b.safetensors")]
    assert checkpoint.weights_hash == blend(*ends, 0.25).weights_hash
    assert checkpoint.record["blend"] == {ends[0].weights_hash: 0.75, ends[1].weights_hash: 0.25}
    lr = sample_batch(1, 7, 8)
    with torch.inference_mode():
        expected = checkpoint.build()(torch.from_numpy(lr), 2).numpy()
    np.testing.assert_allclose(run_file(find_onnx(weights, 2), "fp32")(lr), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("psnr:gan:1.5", UnknownWeightsError, "the share is '1.5'; expected FIRST:SECOND:SHARE"),
        ("psnr:gan:half", UnknownWeightsError, "the share is 'half'"),
        ("psnr:nobody:0.5", UnknownWeightsError, "no weights named 'nobody'"),
        ("psnr:gone.safetensors:0.5", UnknownWeightsError, "gone.safetensors: no such file"),
        ("psnr:tiny.safetensors:0.5", CheckpointError, "networks with the same shape"),
        (
            "psnr:srcnn.safetensors:0.5",
            UnknownWeightsError,
            "a network 'srcnn', which runs on --backend torch",
        ),
        ("psnr:other.safetensors:0.5", CheckpointError, "found format None"),
        ("psnr:gan:0.3:photo:0.5", UnknownWeightsError, "psnr:gan:0.3 is a blend, which can't"),
        ("4x.pth:gan:0.3", UnknownWeightsError, "4x.pth can't be blended; expected shipped names"),
    ],
)
def test_wrong_blends_are_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    error: type[Exception],
    message: str,
) -> None:
    from conftest import small_baseline

    monkeypatch.chdir(tmp_path)
    save_checkpoint(random_checkpoint(TINY), tmp_path / "tiny.safetensors")
    save_checkpoint(small_baseline("srcnn"), tmp_path / "srcnn.safetensors")
    (tmp_path / "other.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(error, match=message):
        find_onnx(weights, 1)


@pytest.mark.parametrize("torch_is", ["here", "missing"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-w", "psnr:gan:0.3", "--blend", "0.5"], "psnr:gan:0.3 is a blend"),
        (["-w", "psnr-4.onnx", "-s", "2", "--precision", "fp16"], "psnr-4.onnx: "),
    ],
)
def test_an_export_of_other_weights_than_asked_for_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
    torch_is: str,
) -> None:
    if torch_is == "missing":
        monkeypatch.setattr("agsr.cli.export_assembled.find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS_FOLDER / "psnr-4.onnx", tmp_path)
    result = CliRunner().invoke(main, ["export", *options])
    assert result.exit_code != 0
    assert message in f"{result.output}{result.exception}"
    assert [path.name for path in tmp_path.iterdir()] == ["psnr-4.onnx"]


def test_a_file_with_colons_in_its_name_is_no_blend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Blend.parse("best-10:20:30.onnx") is None
    Path("best-10:20:30").touch()
    assert Blend.parse("best-10:20:30") is None
    assert declared_scale("psnr:gan:0.3") == 4


def test_int8_of_a_blend_is_rejected() -> None:
    with pytest.raises(UnshippedError, match=r"int8 has no ranges of values .* use fp16"):
        find_onnx("psnr:gan:0.5", 4, "int8")
    with pytest.raises(ModelError, match="expected 1 to 16"):
        find_onnx("psnr", 17)


def test_names_of_a_blend_are_found_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(random_checkpoint(TINY), tmp_path / "mine.safetensors")
    monkeypatch.setenv("AGSR_MODELS", str(tmp_path))
    resolved = resolve_weights("psnr:mine:0.5")
    assert Blend.parse(resolved) == Blend("psnr", str(tmp_path / "mine.safetensors"), 0.5)


def test_a_checkpoint_runs_on_other_runtimes_without_an_export(checkpoint_file: Path) -> None:
    lr = sample_batch(1, 6, 7)
    with (
        open_backend("ort", str(checkpoint_file), steps=2) as assembled,
        open_backend("torch", str(checkpoint_file), steps=2) as trained,
    ):
        np.testing.assert_allclose(assembled.upscale(lr), trained.upscale(lr), atol=1e-5)


def test_the_cache_is_reused_repaired_and_private(own_cache: Path) -> None:
    first = find_onnx("psnr", 2)
    content, made = first.read_bytes(), first.stat().st_mtime_ns
    assert first.parent == own_cache
    assert own_cache.stat().st_mode & 0o077 == 0
    os.utime(first, ns=(made - 10**9, made - 10**9))
    assert find_onnx("psnr", 2) == first
    assert first.stat().st_mtime_ns > made - 10**9  # so that it isn't evicted
    first.write_bytes(content[:1000])
    assert find_onnx("psnr", 2).read_bytes() == content


def test_a_cache_that_others_can_write_to_is_not_used(own_cache: Path) -> None:
    content = find_onnx("psnr", 2).read_bytes()
    own_cache.chmod(0o777)
    found = find_onnx("psnr", 2)
    assert found.parent != own_cache
    assert found.read_bytes() == content


def test_without_a_writable_cache_the_file_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "file"))
    code = (
        "from agsr.pretrained import find_onnx; path = find_onnx('psnr', 1); print(path);"
        "assert path.stat().st_size > 1e6"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "agsr-" in run.stdout
    assert not Path(run.stdout.strip()).parent.exists()  # removed with the process


def test_processes_that_start_together_get_whole_files(own_cache: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        contents = {p.read_bytes() for p in threads.map(lambda _: find_onnx("gan", 1), range(8))}
    assert len(contents) == 1
    onnx.load_from_string(contents.pop())
    assert len(list(own_cache.iterdir())) == 1


def test_the_cache_is_bounded(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_ENTRIES", 2)
    for number in range(4):
        path = cached.assembled_file("a.onnx", {"n": number}, lambda: b"content")
        os.utime(path, (number, number))
    assert len(list(own_cache.iterdir())) == 2


def test_weights_survive_a_round_trip(tmp_path: Path, checkpoint_file: Path) -> None:
    read = read_generator(checkpoint_file)
    (tmp_path / "a.safetensors").write_bytes(to_safetensors(read, {"from": "here"}))
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert again.weights_hash == read.hash == load_checkpoint(checkpoint_file).weights_hash
    assert again.record == {"from": "here"}


@pytest.mark.parametrize("field", ["mapping_pairs", "dense_layers", "dense_blocks", "width"])
def test_a_network_without_weights_for_its_layers_is_rejected(tmp_path: Path, field: str) -> None:
    """Before anything of its size is made, here or by torch."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(random_checkpoint(TINY), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"]) | {field: 1_000_000_000}
    header["__metadata__"]["config"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    for read in (read_generator, load_checkpoint):
        with pytest.raises(CheckpointError, match="invalid header"):
            read(path)


@pytest.mark.parametrize("damage", ["cut", "dtype", "shape", "offsets"])
def test_damaged_weights_are_rejected(tmp_path: Path, checkpoint_file: Path, damage: str) -> None:
    content = checkpoint_file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header["upsample.bias"]
    if damage == "dtype":
        entry["dtype"] = "F64"
    if damage == "shape":
        entry["shape"] = [2, 24]
    if damage == "offsets":
        entry["data_offsets"] = [0, 1 << 40]
    text = json.dumps(header).encode()
    body = content[8 + length :][: -100 if damage == "cut" else None]
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    with pytest.raises(CheckpointError, match="invalid header"):
        read_generator(path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--blend", "0.3"], "psnr:gan:0.3"),
        (["--blend", "0.3", "-w", "photo"], "photo:gan:0.3"),
        (["-w", "photo", "--blend", "0.3"], "photo:gan:0.3"),
        (["--blend", "photo:psnr:1"], "photo:psnr:1"),
        ([], "psnr"),
    ],
)
def test_the_option_names_a_blend(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str
) -> None:
    asked: list[str] = []

    def opened(weights: str, **_: object) -> None:
        asked.append(weights)
        raise UnshippedError("enough")

    monkeypatch.setattr("agsr.engines.upscaler.Upscaler", opened)
    CliRunner().invoke(main, ["infer", str(PHOTO), *options])
    assert asked == [expected]


def test_both_ends_and_weights_contradict_one_another() -> None:
    for options in (["-w", "psnr", "--blend", "psnr:gan:0.5"], ["--blend", "a:b:1", "-w", "gan"]):
        result = CliRunner().invoke(main, ["infer", str(PHOTO), *options])
        assert result.exit_code == 2
        assert "names both ends; remove --weights" in result.output


def test_request_of_a_blend_is_like_that_of_shipped_weights() -> None:
    request = Request(backend="ort", weights="psnr:gan:0.5", precision="auto")
    assert request.precision_at(request.place) == "fp32"


def test_neither_torch_nor_onnx_is_needed(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'safetensors']));"
    code = f"{blocked} from agsr.cli import main; main()"
    small = tmp_path / "a.png"
    with Image.open(PHOTO) as photo:
        photo.crop((0, 0, 12, 9)).save(small)
    command = [sys.executable, "-c", code, "infer", str(small), "-s", "1", "--blend", "0.5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a_x4.png") as result:
        assert result.size == (48, 36)


def test_the_command_lists_and_clears_what_was_made(own_cache: Path) -> None:
    path = find_onnx("psnr", 1, "fp16")
    run = CliRunner()
    shown = json.loads(run.invoke(main, ["cache", "list", "--json"]).stdout)
    (entry,) = (entry for entry in shown if entry["kind"] == "assembled")
    assert (entry["name"], entry["sound"]) == (path.name, True)
    assert "1 assembled file," in run.invoke(main, ["cache", "list"]).stdout
    path.write_bytes(b"damaged")
    assert "damaged: rebuilt when needed" in run.invoke(main, ["cache", "list"]).stdout
    assert "freed" in run.invoke(main, ["cache", "clear"]).stdout
    assert not own_cache.exists()


def test_shipped_weights_are_exported_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.cli.export_assembled.find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", "-s", "3", "--triton", "models"])
    assert "3 steps, fp32; not compared with torch, which is not installed" in result.stdout
    assert (tmp_path / "psnr-3.onnx").read_bytes() == find_onnx("psnr", 3).read_bytes()
    assert (tmp_path / "models/psnr-3/1/model.onnx").is_file()
    options = ["export", "--blend", "0.25", "--precision", "fp16", "--json"]
    shown = json.loads(CliRunner().invoke(main, options).stdout)
    assert shown["path"] == "psnr-gan-0.25-4-fp16.onnx"
    blended = find_onnx("psnr:gan:0.25", 4, "fp16")
    assert (tmp_path / shown["path"]).read_bytes() == blended.read_bytes()
