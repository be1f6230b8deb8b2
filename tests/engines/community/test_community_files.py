"""Weights of other projects that are refused: code, damage, wrong labels, lies about sizes."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from agsr.engines.community.loader import load_network
from agsr.engines.community.plain_pickle import Index
from agsr.engines.community.tensor_index import read_index
from agsr.engines.open import check_request, open_backend
from agsr.errors import CheckpointError, ModelError

MakeFile = Callable[[str], Path]


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("this must never be printed",)


def zipped(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def legacy(path: Path, state: Any) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("save", [zipped, legacy])
def test_pickles_that_would_run_code_are_refused(
    save: Callable[[Path, Any], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "evil.pth", {"params": {"a": torch.zeros(1)}, "extra": Evil()})
    with pytest.raises(ModelError, match=r"wants to load \w+\.print.*may run code"):
        load_network(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("save", [zipped, legacy])
def test_truncated_files_are_refused(
    save: Callable[[Path, Any], Path], community_file: MakeFile, tmp_path: Path
) -> None:
    path = save(tmp_path / "whole.pth", torch.load(community_file("compact")))
    load_network(path)
    content = path.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 23)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"whole\.pth: "):
            load_network(path)


WRONG = {
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "a web page": b"<!DOCTYPE html><html></html>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "an ONNX file": b"\x08\x03\x12\x07pytorch",
    "an empty file": b"",
    "not one of PyTorch weights": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mislabelled_files_are_named_by_their_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    path.write_bytes(WRONG[kind])
    with pytest.raises(ModelError, match=kind):
        load_network(path)


def test_the_two_formats_are_told_apart_whatever_the_ending(
    community_file: MakeFile, tmp_path: Path
) -> None:
    pickled = tmp_path / "a.safetensors"
    pickled.write_bytes(community_file("compact").read_bytes())
    with pytest.raises(ModelError, match=r"a ZIP archive, as torch writes; rename it to \.pth"):
        load_network(pickled)
    path = tmp_path / "b.pth"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"a safetensors file; rename it to \.safetensors"):
        load_network(path)


def test_torchscript_and_other_archives_are_refused(tmp_path: Path) -> None:
    script, archive = tmp_path / "script.pth", tmp_path / "archive.pth"
    for path, entry in ((script, "net/code/__torch__.py"), (archive, "readme.txt")):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(entry, "")
    with pytest.raises(ModelError, match="TorchScript file, which is code"):
        load_network(script)
    with pytest.raises(ModelError, match="a ZIP archive, not a file of PyTorch weights"):
        load_network(archive)


def test_networks_of_unknown_architecture_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "classifier.pth", {"fc.weight": torch.zeros(10, 4)})
    with pytest.raises(ModelError, match=r"of no architecture that spandrel 0\.\d"):
        load_network(path)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no tensors"):
        load_network(zipped(tmp_path / "empty.pth", {"epoch": 3}))


def rezipped(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Copy a file of torch's with changed entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_archives_that_torch_reads_otherwise_than_the_check_are_refused(
    community_file: MakeFile, tmp_path: Path
) -> None:
    """torch takes the folder of the first entry, and finds names in any case."""
    honest = community_file("compact")
    for number, extra in enumerate(("other/version", "{}DATA.PKL", "{}data/0")):
        path = tmp_path / f"{number}.pth"
        with zipfile.ZipFile(honest) as old, zipfile.ZipFile(path, "w") as new:
            folder = old.namelist()[0].partition("/")[0] + "/"
            if number < 2:
                new.writestr(extra.format(folder), b"")
            for name in old.namelist():
                new.writestr(name, old.read(name))
            if number == 2:  # one record under thousands of names costs the file nothing
                info = new.getinfo(extra.format(folder))
                for copy in range(2000):
                    again = zipfile.ZipInfo(f"{folder}data/more{copy}")
                    again.file_size = again.compress_size = max(info.file_size, 4096)
                    again.header_offset, again.CRC = info.header_offset, info.CRC
                    new.filelist.append(again)
        with pytest.raises(ModelError, match="torch writes no such file"):
            read_index(path)


@pytest.mark.parametrize("names", [("a/b/data.pkl", "a/data.pkl"), ("a/b/data.pkl",)])
def test_an_archive_has_one_index_where_torch_looks_for_it(
    names: tuple[str, ...], community_file: MakeFile, tmp_path: Path
) -> None:
    with zipfile.ZipFile(community_file("compact")) as old:
        index = next(old.read(name) for name in old.namelist() if name.endswith("data.pkl"))
    path = tmp_path / "nested.pth"
    with zipfile.ZipFile(path, "w") as new:
        for name, content in zip(names, (index, pickle.dumps(Evil())), strict=False):
            new.writestr(name, content)
    with pytest.raises(ModelError, match="torch writes no such file"):
        read_index(path)


def test_a_name_with_a_zero_byte_is_refused(community_file: MakeFile, tmp_path: Path) -> None:
    """Python ends the name there, torch doesn't."""
    path = tmp_path / "zero.pth"
    path.write_bytes(community_file("compact").read_bytes().replace(b"/version", b"/vers\0on"))
    with pytest.raises(ModelError, match="torch writes no such file"):
        read_index(path)


def test_a_legacy_file_that_is_a_tar_archive_too_is_refused(tmp_path: Path) -> None:
    content = legacy(tmp_path / "plain.pth", {"a": torch.zeros(200)}).read_bytes()
    read_index(tmp_path / "plain.pth")
    header = tarfile.TarInfo("storages").tobuf()
    text = b"X" + (len(header) - 5).to_bytes(4, "little")  # BINUNICODE of what follows, dropped
    mixed = bytearray(header)
    mixed[:7] = b"\x80\x02" + text
    mixed[148:156] = b" " * 8
    mixed[148:156] = f"{sum(mixed):06o}\0 ".encode()
    path = tmp_path / "tar.pth"
    path.write_bytes(bytes(mixed) + bytes(2) + b"0" + content[2:])
    assert tarfile.TarInfo.frombuf(path.read_bytes()[:512], "utf-8", "surrogateescape")
    with pytest.raises(ModelError, match="a tar archive too"):
        read_index(path)


@pytest.mark.parametrize("change", ["append", "repeat"])
def test_a_legacy_file_holds_the_values_that_it_declares(change: str, tmp_path: Path) -> None:
    path = legacy(tmp_path / "old.pth", {"a": torch.zeros(2)})
    content = path.read_bytes()
    values = content[-16:]  # their number, and two values
    keys = content[:-16]
    if change == "repeat":  # torch would read the values twice
        at = keys.rindex(b"]q\x00X")
        key = keys[at + 3 : -2]
        keys = keys[:at] + b"](" + key + key + b"e."
    path.write_bytes(keys + values + (b"more" if change == "append" else b""))
    with pytest.raises(ModelError, match="truncated or damaged"):
        read_index(path)


def test_tensors_without_values_are_refused(tmp_path: Path) -> None:
    """A table of (65536, 0) costs a file nothing, and a network 69 GB of positions."""
    state = {"a": torch.zeros(1), "table": torch.zeros(65536, 0)}
    save_file(state, tmp_path / "b.safetensors")
    for path in (zipped(tmp_path / "a.pth", state), tmp_path / "b.safetensors"):
        with pytest.raises(ModelError, match="a side below 1"):
            read_index(path)


def test_tensors_larger_than_their_data_are_refused(
    community_file: MakeFile, tmp_path: Path
) -> None:
    """A lie about a size must be found before anything of that size is allocated."""

    def shorten(name: str, content: bytes) -> bytes:
        return content[:-4] if name.endswith("data/0") else content

    path = rezipped(community_file("compact"), tmp_path / "short.pth", shorten)
    with pytest.raises(ModelError, match="tensor data '0' has"):
        read_index(path)
    expanded = zipped(tmp_path / "expanded.pth", {"a": torch.zeros(1).expand(1 << 40)})
    with pytest.raises(ModelError, match="a tensor of 1099511627776 values in 1"):
        read_index(expanded)


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ModelError, match="declares tensors beyond its 4 bytes"):
        load_network(path)


def test_shapes_that_ask_for_a_huge_network_are_refused(
    community_file: MakeFile, tmp_path: Path
) -> None:
    """An architecture's code takes widths from single tensors: a small file can ask for much."""
    state = torch.load(community_file("compact"))["params_ema"]
    state["body.0.weight"] = torch.zeros(60_000, 3, 3, 3)
    path = zipped(tmp_path / "wide.pth", state)
    with pytest.raises(ModelError, match="ask for more than 8 times the memory of the file"):
        load_network(path)


def test_wrong_shapes_are_an_error_with_the_file_name(
    community_file: MakeFile, tmp_path: Path
) -> None:
    state = torch.load(community_file("esrgan"))["params_ema"]
    state["model.0.weight"] = torch.zeros(8, 3, 1, 1)
    with pytest.raises(ModelError, match=r"shapes\.pth: can't be loaded"):
        load_network(zipped(tmp_path / "shapes.pth", state))


def test_unpickling_knows_ordered_dicts_and_nothing_else() -> None:
    content = pickle.dumps(OrderedDict(a=1))
    assert Index(io.BytesIO(content), Path("a")).load() == {"a": 1}


@pytest.mark.parametrize("backend", ["auto", "torch", "ort"])
@pytest.mark.parametrize("kind", [kind for kind in WRONG if kind != "an ONNX file"])
def test_mislabelled_safetensors_are_named_by_their_content(
    kind: str, backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "network.safetensors"
    path.write_bytes(WRONG[kind])
    found = "a pickle; rename it to .pth" if kind.startswith("not one") else kind
    with pytest.raises(CheckpointError, match=f"not a readable safetensors file but .*{found}"):
        check_request(backend, str(path))


def test_a_safetensors_file_without_a_header_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 20) + b'{"a":')
    with pytest.raises(CheckpointError, match="its header is damaged"):
        check_request("auto", str(path))


def test_mislabelled_onnx_files_are_named_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    for kind in ("a PNG image", "an empty file"):
        path.write_bytes(WRONG[kind])
        with pytest.raises(ModelError, match=f"not an ONNX file but {kind}"):
            open_backend("ort", str(path))
