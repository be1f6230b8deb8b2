"""No process of ours writes outside its folders and the user's cache, or looks for a server.

Every command runs with a home, a cache and a folder for temporary files that are empty before. What
lies there afterwards is compared. A hook in every Python process, workers included, records files
that are opened for writing elsewhere and what looks for a server. On Linux, a filter of system
calls ends processes whose compiled code creates a network socket; what it writes is traced by
``strace``, where it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
from clips import Clip, make
from conftest import PHOTO, ROOT
from PIL import Image
from serving import wait_for

OPENVINO = find_spec("openvino") is not None
HOOK = (Path(__file__).parent / "helpers" / "watch_hook.py").read_text()
SIGSYS = 31


@dataclass(frozen=True)
class Place:
    """Where a command runs, and what its surroundings are."""

    root: Path

    @property
    def work(self) -> Path:
        """The folder that it is given."""
        return self.root / "work"

    def environment(self) -> dict[str, str]:
        """Without what the tests set to be left alone."""
        unwanted = ("ORT_", "AGSR_", "XDG_", "OMP_", "MPL", "TORCH", "CI")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        paths = os.pathsep.join(map(str, (self.root / "hook", ROOT)))
        return kept | {
            **{"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")},
            **{"WATCHED": str(self.root), "PYTHONPATH": paths},
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *command: str) -> str:
        """Run a command to its end; returns its stdout."""
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self) -> set[str]:
        """What lies outside the folders that were given and the cache of this project."""
        found = {
            str(path.relative_to(self.root))
            for name in ("home", "tmp")
            for path in (self.root / name).rglob("*")
        }
        return {
            name
            for name in found
            if name != "home/.cache" and not name.startswith("home/.cache/agsr")
        }

    def noticed(self) -> str:
        """What looked for a server, or was opened for writing elsewhere."""
        log = self.root / "log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("home", "tmp", "work", "hook"):
        (tmp_path / name).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    (tmp_path / "work" / "in").mkdir()
    for name in ("a", "b"):
        Image.open(PHOTO).crop((0, 0, 48, 40)).save(tmp_path / "work" / "in" / f"{name}.png")
    return Place(tmp_path)


def test_the_watch_sees_what_it_is_for(place: Place) -> None:
    code = (
        "import os, pathlib, socket, tempfile\n"
        "socket.getaddrinfo('127.0.0.1', 9)\n"
        "(pathlib.Path.home() / 'id').touch()\n"
        "open('../stray', 'w'), os.mkdir('../folder'), os.rename('../stray', '../moved')\n"
        "open('given', 'w'), open(os.devnull, 'w')\n"
        "tempfile.mkdtemp()"
    )
    place.run(sys.executable, "-c", code)
    asked, *written = place.noticed().splitlines()
    assert asked.startswith("socket.getaddrinfo")
    names = [Path(line.partition(" ")[2]).name for line in written]
    assert names == ["id", "stray", "folder", "moved"]
    assert "home/id" in place.left()
    assert any(name.startswith("tmp/") for name in place.left())


def test_the_filter_sees_what_it_is_for(place: Place) -> None:
    """Of a child process, too, whatever loads it."""
    code = (
        "import ctypes, sitecustomize, socket, subprocess, sys\n"
        "sitecustomize.FILTERED or sys.exit(print('unfiltered'))\n"
        "socket.socketpair()\n"
        "call = 'import ctypes; ctypes.CDLL(None).socket({}, 1, 0)'\n"
        "print(*(subprocess.run([sys.executable, '-c', call.format(family)]).returncode\n"
        "        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)))"
    )
    found = place.run(sys.executable, "-c", code).split()
    if found == ["unfiltered"]:
        pytest.skip("system calls can't be filtered here")
    assert found == ["0", f"-{SIGSYS}", f"-{SIGSYS}"]


@dataclass
class Watched:
    """A server under the watch."""

    place: Place
    code: str = "from agsr.cli import main; main()"
    options: tuple[str, ...] = ("serve", "--port", "0", "--steps", "1", "-b", "ort")

    def __enter__(self) -> str:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.code, *self.options],
            cwd=self.place.work,
            env=self.place.environment() | {"WATCHED_SERVER": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.status = self.process.wait(60)
        finally:
            self.process.kill()
            self.process.communicate()


def test_a_server_connects_nowhere_and_leaves_nothing(place: Place) -> None:
    server = Watched(place)
    picture = (place.work / "in" / "a.png").read_bytes()
    with server as address:
        wait_for(lambda: httpx2.get(f"{address}readyz").status_code == 200)
        form = {"file": ("http://127.0.0.1:9/../../x.png", picture)}
        assert httpx2.post(f"{address}v1/upscale", files=form, timeout=60).status_code == 200
        job = httpx2.post(f"{address}v1/jobs?name=../../x.png", content=picture).json()
        events = httpx2.get(address.rstrip("/") + job["links"]["events"], timeout=60)
        assert "event: done" in events.text
        playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"
        job = httpx2.post(f"{address}v1/jobs?name=x.mp4", content=playlist).json()
        events = httpx2.get(address.rstrip("/") + job["links"]["events"], timeout=60)
        assert "event: failed" in events.text
    assert server.status == 0
    assert place.left() == set()
    assert place.noticed() == ""


def test_the_watch_of_a_server_sees_what_it_is_for(place: Place) -> None:
    code = (
        "import ctypes, sitecustomize, socket, sys\n"
        "print(socket.create_server(('127.0.0.1', 0)).getsockname()[1], flush=True)\n"
        "sitecustomize.FILTERED or sys.exit(print('unfiltered'))\n"
        "sys.stdin.read()\n"
        "ctypes.CDLL(None).connect(0, 0, 0)"
    )
    environment = place.environment() | {"WATCHED_SERVER": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    if b"unfiltered" in done.stdout:
        pytest.skip("system calls can't be filtered here")
    assert int(done.stdout) > 0
    assert done.returncode == -SIGSYS


COMMANDS = {
    "infer by ort": "infer in/a.png stills -r -s 1 --backend ort",
    "infer by openvino": "infer in/a.png -s 1 --backend openvino --precision fp32",
    "infer by torch": "infer in/a.png -w tiny.safetensors -s 1 --backend torch",
    "infer of a video": "infer clip.mp4 -w tiny.onnx --backend ort",
    "eval": "eval --set in -w tiny.onnx --backend ort",
    "export": "export -w tiny.safetensors -s 1 --triton models",
    "train": "train --data in --val in --schedule 1x2@8/1 --fp32 -o run",
    "doctor": "doctor",
    "bench": "bench -s 1 --size 16x16 --set in --rounds 1 -b ort,openvino,torch --html a.html",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_leave_nothing_and_ask_nobody(
    place: Place, name: str, onnx_file: Callable[[int], Path], checkpoint_file: Path
) -> None:
    if "openvino" in name and not OPENVINO:
        pytest.skip("OpenVINO has no wheel for this platform")
    shutil.copy(onnx_file(1), place.work / "tiny.onnx")
    shutil.copy(checkpoint_file, place.work / "tiny.safetensors")
    if "stills" in COMMANDS[name]:
        for still in ("heic-p3.heic", "avif-p3.avif", "float16rgb.tif", "photo.jfif"):
            (place.work / "stills").mkdir(exist_ok=True)
            shutil.copy(ROOT / "tests/stills" / still, place.work / "stills")
    if "clip" in COMMANDS[name]:
        make(place.work / "clip.mp4", Clip(frames=2))
    place.run(sys.executable, "-m", "agsr", *COMMANDS[name].split())
    assert place.left() == set()
    assert place.noticed() == ""


@pytest.mark.parametrize("backend", ["ort", *(["openvino"] if OPENVINO else [])])
def test_the_library_leaves_nothing_and_the_caller_as_it_was(place: Place, backend: str) -> None:
    code = (
        "import os, sys\n"
        "import numpy as np\n"
        "before = dict(os.environ)\n"
        "from agsr import Upscaler\n"
        f"Upscaler('psnr', steps=1, backend='{backend}')(np.zeros((8, 8, 3), np.uint8))\n"
        "assert dict(os.environ) == before\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    place.run(sys.executable, "-c", code)
    assert place.left() == set()
    assert place.noticed() == ""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_compiled_code_writes_nowhere_either(place: Place) -> None:
    log = place.root / "calls"
    calls = "connect,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
    trace = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}"]
    probe = subprocess.run([*trace, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("processes can't be traced here")
    code = (
        "import numpy as np\n"
        "from agsr import Upscaler\n"
        f"for backend in {['ort', *(['openvino'] if OPENVINO else [])]}:\n"
        "    Upscaler('psnr', steps=1, backend=backend)(np.zeros((8, 8, 3), np.uint8))\n"
    )
    place.run(*trace, sys.executable, "-c", code)
    lines = log.read_text().splitlines()
    assert [line for line in lines if "AF_INET" in line or ":53" in line] == []
    changes = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|mkdir|rename")
    allowed = re.compile(rf'"({re.escape(str(place.root))}|/dev/|/proc/self/)')
    written = [line for line in lines if changes.search(line) and " = -1 " not in line]
    assert [line for line in written if not allowed.search(line)] == []
