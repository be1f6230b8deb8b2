"""``agsr infer`` with addresses: an object store instead of folders, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
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
