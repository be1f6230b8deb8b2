"""The stages of the GPU kit, on the machine that has the GPU: installed, limited, recorded.

One deadline holds for the whole call; each stage is a process group that is ended when its time is
up. A stage that fails doesn't stop the next. Whatever there is lies in ``$OUT`` at any time, in at
most eight files: what a killed call leaves there, another one can resume.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gpu_pack import KitError

PATIENCE = float(os.environ.get("KIT_PATIENCE", "1"))
"""Stages may take so many times as long: for rehearsals, where a CPU stands in for a GPU."""

STAGE_SECONDS = {"check": 90.0 * PATIENCE, "speed": 100.0 * PATIENCE}
"""The most that a stage takes; ``train`` is given its minutes."""

GRACE = 10.0 * PATIENCE
"""Seconds between SIGTERM and SIGKILL, enough to save."""

FRESH = ("--schedule", "4x1@64/32", "--rate", "1.5e-3", "--set", "warmup=100")
"""A run that begins with trained weights: 4 steps, 32 patches of 64x64 LR pixels."""

RUN_FILES = ("state.safetensors", "best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    minutes: float = 0.0
    """Of ``train``."""

    @property
    def seconds(self) -> float:
        """The most that it may take."""
        return STAGE_SECONDS.get(self.name, 60 * self.minutes + GRACE)

    def __str__(self) -> str:
        return f"{self.name} {self.minutes:g}" if self.minutes else self.name


@dataclass(frozen=True)
class Settings:
    """What holds for all stages."""

    out: Path
    home: Path
    device: str
    end: float
    """When everything has to be over, by `time.monotonic`."""
    name: str = "psnr"
    """Of the run's folder."""
    extra: Sequence[str] = ()
    """More options of ``agsr train``."""

    @classmethod
    def from_environment(cls, seconds: float, name: str, extra: Sequence[str]) -> Settings:
        """By ``OUT``, ``KIT_HOME`` and ``DEVICE``."""
        return cls(
            out=Path(os.environ.get("OUT", "runs/gpu")).absolute(),
            home=Path(os.environ["KIT_HOME"]),
            device=os.environ.get("DEVICE", "cuda"),
            end=time.monotonic() + seconds,
            name=name,
            extra=extra,
        )

    @property
    def seconds_left(self) -> float:
        """Until everything has to be over."""
        return self.end - time.monotonic()


@dataclass
class Record:
    """What a stage came to."""

    stage: str
    command: str
    result: str = "running"
    seconds: float = 0.0


@dataclass
class Log:
    """Everything printed, and the table of results, in ``$OUT``."""

    out: Path
    records: list[Record] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Print a text, and append it to ``log.txt``."""
        print(text, end="", flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text)

    def note(self) -> None:
        """Write ``stages.json``."""
        rows = [vars(record) for record in self.records]
        _write(self.out / "stages.json", json.dumps(rows, indent=1) + "\n")


def parse_stages(words: Sequence[str]) -> list[Stage]:
    """``check``, ``speed``, ``train MINUTES``, in any order.

    Raises:
        KitError: A word is none of them.
    """
    stages, rest = [], list(words)
    while rest:
        name = rest.pop(0)
        if name in STAGE_SECONDS:
            stages.append(Stage(name))
            continue
        try:
            stages.append(Stage({"train": name}[name], float(rest.pop(0))))
        except (KeyError, IndexError, ValueError):
            raise KitError(f"found {name!r}; stages are check, speed and train MINUTES") from None
    return stages


def run(stages: Sequence[Stage], settings: Settings) -> int:
    """Run the stages; 1 if one failed."""
    settings.out.mkdir(parents=True, exist_ok=True)
    log = Log(settings.out)
    install(Path.cwd(), settings.home, log.write)
    for stage in stages:
        try:
            command = _command(stage, settings)
        except KitError as error:
            log.records.append(Record(str(stage), "", f"error: {error}"))
            log.note()
            continue
        record = Record(str(stage), " ".join(command))
        log.records.append(record)
        log.note()
        log.write(f"\n== {stage}: {record.command}\n")
        _run_stage(command, stage, settings, record)
        log.note()
    log.write("\n" + table(log.records))
    return int(any(record.result != "ok" for record in log.records))


def install(tree: Path, home: Path, say: Callable[[str], object] = print) -> None:
    """Put the parts that came with the checkout into the kit's home, where parts before lie."""
    parts = sorted(path.parent for path in tree.glob(".kit*/*/pack.json"))
    for part in parts:
        sizes = json.loads((part / "pack.json").read_text(encoding="utf-8"))
        for target, size in sizes.items():
            source, copy = part / target, home / target
            if source.stat().st_size != size:
                raise KitError(f"{source} has {source.stat().st_size} bytes, expected {size}")
            if not copy.exists() or (copy.stat().st_size != size and "runs/" not in target):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        say(f"installed {len(sizes)} files of {part}\n")
    for wheel in sorted(home.glob("wheels/*.whl")):
        shutil.unpack_archive(wheel, home / "site", "zip")
    if (home / "data").is_dir():
        os.environ["AGSR_DATA"] = str(home / "data")


def table(records: Sequence[Record]) -> str:
    """The stages and what they came to."""
    lines = [f"{r.stage:<12} {r.seconds:7.1f} s  {r.result}" for r in records]
    return "\n".join(["stage           time     result", *lines]) + "\n"


def _command(stage: Stage, settings: Settings) -> list[str]:
    python = [sys.executable]
    out = ["--out", str(settings.out), "--device", settings.device]
    if stage.name == "train":
        return [*python, "-m", "agsr", "train", *_train_options(stage, settings)]
    seconds = min(stage.seconds, settings.seconds_left) - 5
    script = Path(__file__).with_name(f"gpu_{stage.name}.py")
    return [*python, str(script), *out, "--seconds", f"{seconds:.0f}"]


def _train_options(stage: Stage, settings: Settings) -> list[str]:
    """Resume where there is a state; else begin, if the caller said with what."""
    folder, kept = settings.out / settings.name, settings.home / "runs" / settings.name
    extra = [_weights_of_run(word, settings) for word in settings.extra]
    begins = any(word.split("=")[0] in ("--init", "--seed") for word in extra)
    if not (folder / RUN_FILES[0]).exists() and (kept / RUN_FILES[0]).exists():
        _copy_newer(kept, folder)
    has_state = (folder / RUN_FILES[0]).exists()
    if not has_state and not begins:
        raise KitError(
            f"no state to resume in {folder} or {kept}; begin a run with -- --init psnr, "
            "or -- --seed 0 for random weights"
        )
    if has_state and begins:
        raise KitError(f"{folder} holds a run: resume it without --init, or choose another --name")
    minutes = min(stage.minutes, (settings.seconds_left - GRACE) / 60)
    gpu = settings.device != "cpu"
    options = ["-o", str(folder), "--device", settings.device, "--budget", f"{minutes:.3f}"]
    options += ["--no-tensorboard", "--kernels", "auto" if gpu else "eager"]
    return options + (["--resume"] if has_state else list(FRESH)) + extra


def _weights_of_run(word: str, settings: Settings) -> str:
    """``run:NAME`` stands for the best weights of a run that this machine made."""
    if not word.startswith("run:"):
        return word
    name = word.removeprefix("run:")
    places = (settings.out / name, settings.home / "runs" / name)
    found = [place / RUN_FILES[1] for place in places if (place / RUN_FILES[1]).exists()]
    if not found:
        raise KitError(f"no best.safetensors of a run {name!r} in {places[0]} or {places[1]}")
    return str(found[0])


def _run_stage(command: Sequence[str], stage: Stage, settings: Settings, record: Record) -> None:
    """Run a command until it ends or its time is up; note what it came to."""
    began = time.monotonic()
    end = began + min(stage.seconds, settings.seconds_left - 5)
    with (settings.out / "log.txt").open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        log = _Follower(settings.out / "log.txt")
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            log.print_new()
            _copy_newer(settings.out / settings.name, settings.home / "runs" / settings.name)
        late = process.poll() is None
        if late:
            _end(process)
    log.print_new()
    _copy_newer(settings.out / settings.name, settings.home / "runs" / settings.name)
    record.seconds = time.monotonic() - began
    status = process.returncode
    record.result = "out of time" if late else "ok" if not status else f"failed, status {status}"


class _Follower:
    """Prints what is appended to a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, path.stat().st_size

    def print_new(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        self._at += len(content)
        if content:
            print(content.decode("utf-8", "replace"), end="", flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM for the group, which saves, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(5)


def _copy_newer(source: Path, target: Path) -> None:
    """Copy a run's files that changed, each complete."""
    for name in RUN_FILES:
        file, copy = source / name, target / name
        if not file.exists():
            continue
        if copy.exists() and copy.stat().st_mtime_ns >= file.stat().st_mtime_ns:
            continue
        target.mkdir(parents=True, exist_ok=True)
        part = copy.with_suffix(".part")
        shutil.copy2(file, part)
        part.replace(copy)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
