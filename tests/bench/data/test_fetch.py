"""Fetching test sets from a server of our own, which may lie, break off or be away."""

from __future__ import annotations

import gc
import hashlib
import json
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import cv2
import numpy as np
import pooch
import pytest
from click.testing import CliRunner

from agsr.bench.data import fetch
from agsr.bench.data import sets as datasets
from agsr.bench.data.fetch import Source, fetch_set, sources
from agsr.bench.data.sets import find_set
from agsr.cli import main
from agsr.errors import DatasetError, MissingDependencyError
from agsr.system import optional_import
from agsr.system.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NAMES = ("a.png", "b.png", "c.png")


def _image(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    return bytes(cv2.imencode(".png", noise)[1])


FILES = {name: _image(seed) for seed, name in enumerate(NAMES)}


class Server(ThreadingHTTPServer):
    """Serves `FILES` below ``owner/name/COMMIT/HR``; `faults` are served first, one per request."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        assert folder == "/owner/name/c0ffee/HR"
        self.server.asked[name] += 1
        faults = self.server.faults.get(name, [])
        fault, content = faults.pop(0) if faults else "", FILES[name]
        self.send_response(404 if fault == "gone" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The server, the set ``Mini`` that it holds, and an empty cache."""
    mini = Source(
        name="Mini",
        repository="owner/name",
        commit="c0ffee",
        folder="HR",
        files={name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
    )
    for module in (fetch, datasets):
        monkeypatch.setattr(module, "sources", lambda: {"Mini": mini})
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AGSR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with Server() as running:
        monkeypatch.setenv("AGSR_DATASETS_URL", running.url)
        Thread(target=partial(running.serve_forever, poll_interval=0.01), daemon=True).start()
        yield running
        running.shutdown()
    gc.collect()  # what pooch leaves open of a broken download is closed here, not in other tests


def _cached(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "cache" / "datasets" / "Mini" / "HR"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_set_is_fetched_once_and_then_found(server: Server, tmp_path: Path) -> None:
    reported: list[Progress] = []
    images = find_set("Mini", fetch=True, progress=reported.append)
    assert images.name == "Mini"
    assert [path.name for path in images.files] == list(NAMES)
    assert _cached(tmp_path) == FILES
    assert reported == [Progress(count, 3) for count in range(4)]
    assert find_set("Mini").files == images.files
    assert find_set("Mini", fetch=True).files == images.files
    assert server.asked == Counter(NAMES)


def test_nothing_is_fetched_unless_asked_for(server: Server) -> None:
    with pytest.raises(
        DatasetError, match=r"no image set 'Mini' .*; fetch it once with --fetch .*or"
    ):
        find_set("Mini")
    assert not server.asked


def test_a_data_folder_comes_before_what_was_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data" / "Mini").mkdir(parents=True)
    (tmp_path / "data" / "Mini" / "mine.png").write_bytes(FILES["a.png"])
    find_set("Mini", fetch=True)
    own = find_set("Mini", tmp_path / "data", fetch=True)
    assert [path.name for path in own.files] == ["mine.png"]
    assert server.asked == Counter(NAMES)


@pytest.mark.parametrize("fault", ["corrupt", "cut"])
def test_a_fault_that_passes_is_tried_again(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults["b.png"] = [fault] * 2
    fetch_set("Mini")
    assert server.asked["b.png"] == 3
    assert _cached(tmp_path) == FILES


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("corrupt", "not the published file"), ("cut", "broke off"), ("gone", "HTTP status 404")],
)
def test_bad_files_are_never_cached_and_the_rest_continues_later(
    server: Server, tmp_path: Path, fault: str, reason: str
) -> None:
    server.faults["b.png"] = [fault] * 3
    with pytest.raises(DatasetError, match=rf"b\.png: {reason}.*; 1 of 3 files are in ") as failed:
        fetch_set("Mini")
    assert "\n" not in str(failed.value)
    assert _cached(tmp_path) == {"a.png": FILES["a.png"]}
    with pytest.raises(DatasetError, match="--fetch"):  # a part of a set is not the set
        find_set("Mini")
    fetch_set("Mini")
    assert server.asked == Counter({"a.png": 1, "b.png": 4, "c.png": 1})
    assert _cached(tmp_path) == FILES


def test_a_file_damaged_later_is_fetched_again(server: Server, tmp_path: Path) -> None:
    folder = fetch_set("Mini")
    (folder / "HR" / "c.png").write_bytes(b"damaged")
    fetch_set("Mini")
    assert _cached(tmp_path) == FILES
    assert server.asked["c.png"] == 2


@pytest.mark.usefixtures("server")
def test_offline_says_what_was_tried_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DatasetError) as failed:
            fetch_set("Mini", base_url=away)
    message = str(failed.value)
    assert f"{away}/owner/name/c0ffee/HR/a.png: no connection, 3 times; 0 of 3 files" in message
    assert "put the images into DATA/Mini/HR by hand" in message
    assert "\n" not in message
    monkeypatch.setenv("AGSR_DATASETS_URL", "ftp://mirror")
    with pytest.raises(DatasetError, match="AGSR_DATASETS_URL is 'ftp://mirror'; expected"):
        fetch_set("Mini")


@pytest.mark.usefixtures("server")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(DatasetError, match=r"can't be cached: .* \(AGSR_CACHE names another"):
        fetch_set("Mini")


@pytest.mark.usefixtures("server")
def test_unknown_sets_and_missing_packages_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match=r"no source of 'Set99'; those that can be .*: Mini"):
        fetch_set("Set99")
    with pytest.raises(DatasetError, match=r"no image set 'Set99' .*give the path .*Mini: with"):
        find_set("Set99", fetch=True)

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(optional_import, "import_without_telemetry", absent)
    with pytest.raises(MissingDependencyError, match=r"'pooch'.*pip install 'agsr\[bench\]'"):
        fetch_set("Mini")


def test_eval_fetches_if_asked(server: Server) -> None:
    arguments = ["eval", "--set", "Mini", "--steps", "1", "--json"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "fetch it once with --fetch" in refused.stderr
    done = CliRunner().invoke(main, [*arguments, "--fetch"])
    assert done.exit_code == 0, done.output
    assert [row["image"] for row in json.loads(done.stdout)["rows"]] == ["a", "b", "c"]
    assert server.asked == Counter(NAMES)


def test_known_sources_are_pinned_and_complete() -> None:
    counts = {name: len(source.files) for name, source in sources().items()}
    assert counts == {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100, "Manga109": 109}
    for source in sources().values():
        assert len(source.commit) == 40
        assert all(len(digest) == 64 for digest in source.files.values())
        assert len({Path(name).stem for name in source.files}) == len(source.files)
    assert sources()["Set5"].url("https://mirror/") == (
        "https://mirror/majedelhelou/denoising_datasets/"
        "58234876fef6f1b56306705c78dfd40cdb837b86/CSet5/"
    )


@pytest.mark.data
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_published_files_are_those_we_score_on(data: Path, name: str) -> None:
    here = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in find_set(name, data).files
    }
    assert here == sources()[name].files
