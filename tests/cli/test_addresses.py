"""``agsr infer`` with addresses: an object store instead of folders, and nothing else changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import agsr_process
from conftest import PHOTO
from object_store import ObjectStore
from PIL import Image

from agsr.cli import main
from agsr.store import retry

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DELAYS", (0.0, 0.0, 0.0))


@pytest.fixture
def infer(onnx_file: Callable[[int], Path]) -> Callable[..., Result]:
    network = str(onnx_file(1))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["infer", "-w", network, *arguments])

    return run


@pytest.fixture
def album(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder and the same files in the bucket, with metadata."""
    monkeypatch.chdir(tmp_path)
    photo = Image.open(PHOTO)
    exif = Image.Exif()
    exif[0x010E] = "Eileen"
    for number, name in enumerate(("a.png", "b.jpg", "deep/er/c.png")):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((number, 0, number + 12, 10)).save(path, exif=exif)
        object_store.put(f"album/{name}", path.read_bytes())
    object_store.requests.clear()
    return tmp_path / "album"


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_bucket_gets_what_a_folder_gets(
    infer: Callable[..., Result], album: Path, object_store: ObjectStore
) -> None:
    alone = infer("-r", "album", "-o", "out")
    done = infer("-r", "s3://photos/album/", "-o", "s3://photos/large/")
    assert (alone.exit_code, done.exit_code) == (0, 0), done.output
    expected = _contents(album.parent / "out")
    requests = list(object_store.requests)
    assert object_store.contents("large/") == {f"large/{n}": c for n, c in expected.items()}
    assert done.stdout == alone.stdout.replace("out/", "s3://photos/large/")
    methods = [method for method, _ in requests]
    assert methods.count("PUT") == 3
    assert methods.count("GET") == 4  # one listing
    assert len(methods) == 7


def test_results_that_are_there_are_found_by_one_listing(
    infer: Callable[..., Result], album: Path, object_store: ObjectStore
) -> None:
    assert album.is_dir()
    command = ("-r", "s3://photos/album/", "--skip-existing")
    assert infer(*command, "--shard", "0/3").exit_code == 0
    first = object_store.contents("album/")
    assert 3 < len(first) < 6
    for part in ("1/3", "2/3"):
        assert infer(*command, "--shard", part, "--devices", "cpu:1").exit_code == 0
    both = object_store.contents("album/")
    assert first.items() < both.items()
    assert len(both) == 6
    object_store.requests.clear()
    again = infer(*command)
    assert again.stdout == ""
    assert "3 already there" in again.stderr
    assert "3 skipped as results of earlier runs" in again.stderr
    assert [method for method, _ in object_store.requests] == ["GET"]
    assert object_store.contents("album/") == both


def test_transient_failures_pass(
    infer: Callable[..., Result], album: Path, object_store: ObjectStore
) -> None:
    assert album.is_dir()
    seen: dict[tuple[str, str], int] = {}

    def fault(method: str, path: str) -> int | float | str | None:
        count = seen[method, path] = seen.get((method, path), 0) + 1
        answers = {1: 503, 2: 500 if method == "PUT" else "cut"}
        return answers.get(count)

    object_store.fault = fault
    done = infer("-r", "s3://photos/album/", "-o", "s3://photos/large/")
    object_store.fault = lambda *_: None
    assert done.exit_code == 0, done.output
    assert infer("-r", "album", "-o", "out").exit_code == 0
    expected = _contents(album.parent / "out")
    assert object_store.contents("large/") == {f"large/{n}": c for n, c in expected.items()}
    assert set(seen.values()) == {3}


def test_a_failure_that_lasts_costs_one_file_and_leaves_nothing(
    infer: Callable[..., Result], album: Path, object_store: ObjectStore
) -> None:
    assert album.is_dir()
    object_store.fault = lambda method, path: (
        503 if method == "PUT" and path.endswith("/b_x4.png") else None
    )
    done = infer("-r", "s3://photos/album/", "-o", "s3://photos/large/")
    object_store.fault = lambda *_: None
    assert done.exit_code == 1
    assert "Error: s3://photos/large/b_x4.png: can't be written: " in done.stderr
    assert ", in 4 attempts" in done.stderr
    assert set(object_store.contents("large/")) == {"large/a_x4.png", "large/deep/er/c_x4.png"}


def test_an_upload_in_parts_is_aborted(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agsr.store.address import Address
    from agsr.store.locations import complete

    def write(key: str) -> None:
        with complete(Address("s3", "photos", key)) as part:
            part.write_bytes(bytes(12 << 20))

    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: 5 << 20)
    write("whole.bin")
    object_store.fault = lambda _, path: 503 if "partNumber=2" in path else None
    with pytest.raises(OSError, match="in 4 attempts"):
        write("broken.bin")
    object_store.fault = lambda *_: None
    assert object_store.uploads() == []
    assert "partNumber=2" in " ".join(path for _, path in object_store.requests)
    assert {k: len(c) for k, c in object_store.contents("").items() if k.endswith(".bin")} == {
        "whole.bin": 12 << 20
    }


def test_errors_name_the_way_out(
    infer: Callable[..., Result], album: Path, object_store: ObjectStore
) -> None:
    assert album.is_dir()

    def error(*arguments: str, status: int = 1) -> str:
        done = infer(*arguments)
        assert done.exit_code == status, done.output
        assert "very-secret-key" not in done.output
        return done.stderr.replace("\n", " ")

    text = error("s3://photos/album/none.png", "album/a.png")
    assert "Error: s3://photos/album/none.png: no such file" in text
    text = error("-r", "s3://elsewhere/album/")
    assert "Error: s3://elsewhere/album: can't be listed: no such file or bucket" in text
    text = error("album/a.png", "-o", "s3://elsewhere/")
    assert "s3://elsewhere/a_x4.png: can't be written: no such file or bucket" in text
    object_store.fault = lambda *_: 403
    text = error("-r", "s3://photos/album/")
    assert "can't be listed: access denied; check the profile or keys of AWS" in text
    assert "ftp://…: unknown scheme; expected s3://, gs://" in error("ftp://h/a.png", status=2)
    assert "add -r" in error("s3://photos/album/", status=2)
    assert "https:// is only read" in error("https://me:pw@127.0.0.1/a.png?sig=x", status=2)
    assert "copy it to a folder first" in error("s3://photos/clip.mp4", status=2)


def test_files_without_addresses_need_no_package_for_them(
    album: Path, onnx_file: Callable[[int], Path]
) -> None:
    program = (
        "import sys; from agsr.cli import main; main(standalone_mode=False)\n"
        "print([m for m in ('fsspec', 's3fs', 'paramiko', 'ray', 'asyncio') if m in sys.modules])"
    )
    done = agsr_process(
        *("infer", "-r", "album", "-o", "out", "--skip-existing", "-w", str(onnx_file(1))),
        cwd=album.parent,
        program=program,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_missing_package_is_named(
    infer: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    done = infer("s3://photos/a.png")
    assert done.exit_code == 1
    assert "s3:// needs the package 's3fs'" in done.stderr
    assert "pip install 'agsr[cloud]'" in done.stderr
