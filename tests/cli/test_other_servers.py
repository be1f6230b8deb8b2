"""``agsr infer`` with files of SFTP and web servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import PHOTO
from PIL import Image

from agsr.cli import main
from agsr.store import filesystems, retry

sftp_servers = pytest.importorskip("sftp_servers", reason="paramiko is not installed")


@pytest.fixture
def infer(onnx_file: Callable[[int], Path]) -> Callable[..., Result]:
    network = str(onnx_file(1))
    return lambda *arguments: CliRunner().invoke(main, ["infer", "-w", network, *arguments])


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(retry, "DELAYS", (0.0,))
    photo = Image.open(PHOTO)
    (tmp_path / "album" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.jpg")):
        photo.crop((number, 0, number + 12, 10)).save(tmp_path / "album" / name)
    return tmp_path / "album"


@pytest.mark.parametrize("serve", [sftp_servers.paramiko_server, sftp_servers.sshd_server])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_sftp_gets_what_a_folder_gets(
    serve: Callable[[Path], object], infer: Callable[..., Result], album: Path, tmp_path: Path
) -> None:
    with serve(tmp_path / "home") as server:  # type: ignore[attr-defined]
        there = f"{server}{tmp_path}"
        assert infer("-r", "album", "-o", "local").exit_code == 0
        done = infer("-r", f"{there}/album/", "-o", f"{there}/new/remote/")
        assert done.exit_code == 0, done.output
        again = infer("-r", f"{there}/album/", "-o", f"{there}/new/remote/", "--skip-existing")
        missing = infer(f"{there}/none.png")
        filesystems.forget_all()
        (tmp_path / "home/.ssh/known_hosts").write_text("")
        unknown = infer(f"{there}/album/a.png")
    filesystems.forget_all()
    for path in (tmp_path / "local").rglob("*.png"):
        remote = tmp_path / "new/remote" / path.relative_to(tmp_path / "local")
        assert remote.read_bytes() == path.read_bytes()
    assert {p.name for p in (tmp_path / "new/remote").rglob("*.*")} == {"a_x4.png", "b_x4.png"}
    assert "2 already there" in again.stderr
    assert missing.exit_code == unknown.exit_code == 1
    assert "none.png: no such file" in missing.stderr
    assert "the server's key is unknown; connect once with ssh" in unknown.stderr
    assert "secret-word" not in done.output + again.output + missing.output + unknown.output
    assert album.is_dir()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_web_server_is_read(infer: Callable[..., Result], album: Path) -> None:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(album))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_address[1]}"
    done = infer(f"{root}/a.png?signature=secret-word", "-o", "web/")
    missing = infer(f"{root}/none.png?signature=secret-word", "-o", "web/", "-v")
    server.shutdown()
    server.server_close()
    assert infer("album/a.png", "-o", "local/").exit_code == 0
    assert Path("web/a_x4.png").read_bytes() == Path("local/a_x4.png").read_bytes()
    assert done.stdout == "web/a_x4.png\n"
    assert asked[0] == "/a.png?signature=secret-word"
    assert f"{root}/none.png: no such file" in missing.stderr
    assert "secret-word" not in done.output + missing.output
