from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PHOTO, PYTHONPATH, Repeat
from image_corpus import READABLE, WHOLE, damaged, truncated
from PIL import Image

from agsr.backend import Batch
from agsr.engines.batch.plan import Job, plan
from agsr.engines.batch.runner import InferOptions, Outcome, process
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError
from agsr.image import read_picture, write_picture, write_row_bands
from agsr.image.decode import decode
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture, RowBands
from agsr.system.progress import Progress
from agsr.system.quiet_stderr import quiet_decoders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small images of several kinds in two folders, two of them damaged."""
    photo = Image.open(PHOTO).convert("RGB")
    (tmp_path / "in" / "below").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "below/c.webp", "below/d.tif", "e.bmp")):
        photo.crop((number, 0, number + 20, 16)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "text.png").write_text("no image")
    (tmp_path / "in" / "below" / "cut.png").write_bytes(PHOTO.read_bytes()[:9000])
    return tmp_path


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_results_are_those_of_one_file_after_the_other(folder: Path) -> None:
    upscaler = Upscaler(backend=Repeat())
    jobs = plan([folder / "in"], folder / "out", recursive=True)
    outcomes = list(process(upscaler, jobs, InferOptions()))
    assert [outcome.job for outcome in outcomes] == jobs
    good = [outcome.job for outcome in outcomes if outcome.error is None]
    assert {job.source.name for job in jobs} - {job.source.name for job in good} == {
        "text.png",
        "cut.png",
    }
    for job in good:
        alone = folder / "alone" / job.target.relative_to(folder / "out")
        write_picture(upscaler.picture(read_picture(job.source)), alone)
    assert _contents(folder / "out") == _contents(folder / "alone")
    assert len(_contents(folder / "out")) == 5


def test_failed_files_are_named_with_the_reason_and_leave_nothing(folder: Path) -> None:
    jobs = plan([folder / "in" / "text.png", folder / "in" / "gone.png"], folder / "out")
    errors = [
        outcome.error for outcome in process(Upscaler(backend=Repeat()), jobs, InferOptions())
    ]
    assert errors[0] is not None
    assert "text.png: not an image" in errors[0]
    assert errors[1] == f"{folder / 'in' / 'gone.png'}: no such file"
    assert not (folder / "out").exists()


def test_damaged_files_of_every_kind_leave_no_result(tmp_path: Path) -> None:
    files = [*damaged(), *(cut for name in READABLE for cut in truncated(WHOLE[name])[::3])]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(content)
    jobs = plan([tmp_path], tmp_path / "out", recursive=True)
    with quiet_decoders():
        outcomes = list(process(Upscaler(backend=Repeat()), jobs, InferOptions()))
    done = {outcome.job.target for outcome in outcomes if outcome.error is None}
    assert set((tmp_path / "out").iterdir()) == done
    assert 100 < len(done) < len(jobs) / 2
    assert len(jobs) == len(files) > 1000


def test_reading_goes_on_while_the_network_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is read before the first is done: else this would wait for ever."""
    read_two = threading.Event()

    class Waits(Repeat):
        def _run(self, lr: Batch) -> Batch:
            assert read_two.wait(60)
            return super()._run(lr)

    def read(path: Path, *rest: Any, **options: Any) -> Picture:
        picture = read_picture(path, *rest, **options)
        if path.name == "b.jpg":
            read_two.set()
        return picture

    monkeypatch.setattr("agsr.engines.batch.runner.read_picture", read)
    jobs = plan([folder / "in" / "a.png", folder / "in" / "b.jpg"], folder / "out")
    outcomes = list(process(Upscaler(backend=Waits()), jobs, InferOptions()))
    assert [outcome.error for outcome in outcomes] == [None, None]


def test_progress_counts_files_and_their_shares(folder: Path) -> None:
    reported: list[Progress] = []
    jobs = plan([folder / "in" / "a.png", folder / "in" / "b.jpg"], folder / "out")
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=2)
    assert all(
        outcome.error is None
        for outcome in process(upscaler, jobs, InferOptions(), reported.append)
    )
    done = [progress.done for progress in reported]
    assert done == sorted(done)
    assert {1.0, 2.0} <= set(done)
    assert {progress.total for progress in reported} == {2}
    assert len(reported) > 4


def test_options_hold_for_every_file(folder: Path) -> None:
    source = folder / "tagged.jpg"
    exif = Image.Exif()
    exif[271] = "Maker"
    Image.open(PHOTO).crop((0, 0, 20, 16)).save(source, exif=exif, dpi=(300, 300))
    for options in (
        InferOptions(),
        InferOptions(sizing=OutputSize(scale=2), quality=50, strip=True),
    ):
        jobs = plan([source], folder / "out.jpg")
        size = (32, 40) if options.strip else (64, 80)
        assert list(process(Upscaler(backend=Repeat()), jobs, options)) == [
            Outcome(jobs[0], size=size)
        ]
        with Image.open(folder / "out.jpg") as image:
            assert image.size == size[::-1]
            assert ("exif" in image.info) == (not options.strip)
            assert ("dpi" in image.info) == (not options.strip)
    (outcome,) = process(Upscaler(backend=Repeat()), jobs, InferOptions(max_pixels=300))
    assert outcome.error is not None
    assert "20x16 is 320 pixels, more than 300" in outcome.error


def test_results_before_an_interruption_are_reported(folder: Path) -> None:
    class Interrupted(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) == 2:
                raise KeyboardInterrupt
            return super()._run(lr)

    for name in "cde":
        Image.new("RGB", (9, 9)).save(folder / f"{name}.png")
    jobs = plan([folder / f"{name}.png" for name in "cde"])
    outcomes = process(Upscaler(backend=Interrupted()), jobs, InferOptions())
    assert [next(outcomes).job, next(outcomes).job] == jobs[:2]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert sorted(path.name for path in folder.glob("*_x4.png")) == ["c_x4.png", "d_x4.png"]


def test_a_result_being_written_when_interrupted_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(row_bands: RowBands, path: Path, quality: int | None) -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        write_row_bands(row_bands, path, quality)

    monkeypatch.setattr("agsr.engines.batch.runner.write_row_bands", write)
    jobs = plan([folder / "in" / "a.png"])
    outcomes = process(Upscaler(backend=Repeat()), jobs, InferOptions())
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
    try:
        assert next(outcomes).error is None
        with pytest.raises(KeyboardInterrupt):
            next(outcomes)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert jobs[0].target.is_file()


def test_memory_that_runs_out_costs_one_file_only(folder: Path) -> None:
    class Small(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if lr[0, 0, 0, 0] > 0.5:
                raise MemoryError
            return super()._run(lr)

    Image.new("RGB", (9, 9), "white").save(folder / "white.png")
    Image.new("RGB", (9, 9), "black").save(folder / "black.png")
    jobs = plan([folder / "white.png", folder / "black.png"], folder / "out")
    first, second = process(Upscaler(backend=Small()), jobs, InferOptions())
    assert first.error == f"{folder / 'white.png'}: out of memory; use a smaller --tile"
    assert second.error is None


def test_errors_of_the_network_name_the_file(folder: Path) -> None:
    class Mad(Repeat):
        def _run(self, lr: Batch) -> Batch:
            return super()._run(lr) * np.float32("nan")

    source = folder / "in" / "a.png"
    (outcome,) = process(Upscaler(backend=Mad()), plan([source]), InferOptions())
    assert outcome.error is not None
    assert outcome.error.startswith(f"{source}: none on cpu returned NaN")


def test_an_error_of_any_kind_costs_one_file_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if not self.shapes:
                self.shapes.append(lr.shape)
                raise ZeroDivisionError("a driver's\nbug")
            return super()._run(lr)

    def write(row_bands: RowBands, path: Path, quality: int | None) -> None:
        if path.name.startswith("b"):
            raise KeyError("odd")
        write_row_bands(row_bands, path, quality)

    monkeypatch.setattr("agsr.engines.batch.runner.write_row_bands", write)
    names = ("a.png", "b.jpg", "e.bmp")
    jobs = plan([folder / "in" / name for name in names], folder / "out")
    errors = [outcome.error for outcome in process(Upscaler(backend=Odd()), jobs, InferOptions())]
    assert errors == [
        f"{jobs[0].source}: ZeroDivisionError: a driver's",
        f"{jobs[1].source}: KeyError: 'odd'",
        None,
    ]


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 4096), (".jpg", 16_376)])
def test_results_too_large_for_their_format_are_not_computed(
    tmp_path: Path, suffix: str, side: int
) -> None:
    backend = Repeat()
    Image.new("L", (side, 1)).save(tmp_path / "wide.png")
    jobs = plan([tmp_path / "wide.png"], tmp_path / f"out{suffix}")
    (outcome,) = process(Upscaler(backend=backend), jobs, InferOptions())
    assert outcome.error is not None
    assert f"wide.png: the result would have {4 * side}x4 pixels, and" in outcome.error
    assert not backend.shapes
    (outcome,) = process(
        Upscaler(backend=backend), jobs, InferOptions(sizing=OutputSize(scale=3.9))
    )
    assert outcome.error is None


def test_files_that_fail_stay_not_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Repeat):
        def _run(self, lr: Batch) -> Batch:
            raise BackendError(f"no {lr.shape}")

    pictures: list[weakref.ref[Picture]] = []

    def read(path: Path, *rest: Any, **options: Any) -> Picture:
        picture = read_picture(path, *rest, **options)
        pictures.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr("agsr.engines.batch.runner.read_picture", read)
    jobs = [Job(folder / "in" / "a.png", folder / f"{n}.png", ".png") for n in range(8)]
    gc.disable()  # cycles would be found some time, and their pictures add up until then
    try:
        for _ in process(Upscaler(backend=Fails()), jobs, InferOptions()):
            assert sum(picture() is not None for picture in pictures) <= 3
    finally:
        gc.enable()
    assert len(pictures) == 8


def test_waiting_for_stdin_can_be_interrupted() -> None:
    code = (
        "from conftest import Repeat; from pathlib import Path; import sys, signal\n"
        "from agsr.engines.batch.plan import plan; from agsr.engines.upscaler import Upscaler\n"
        "from agsr.engines.batch.runner import InferOptions, process\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('ready', flush=True)\n"
        "list(process(Upscaler(backend=Repeat()), plan([Path('-')]), InferOptions()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        time.sleep(1)  # until it waits for stdin
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(30) == -signal.SIGINT
        finally:
            running.kill()


def test_a_stream_in_becomes_a_stream_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, taken = folder / "given", folder / "taken"
    given.write_bytes((folder / "in" / "b.jpg").read_bytes())
    with given.open() as stdin, taken.open("w") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        outcomes = list(process(Upscaler(backend=Repeat()), plan([Path("-")]), InferOptions()))
        monkeypatch.undo()
    assert outcomes == [Outcome(Job(Path("-"), Path("-"), ".png"), size=(64, 80))]
    assert taken.read_bytes()[:4] == b"\x89PNG"
    assert decode(taken.read_bytes(), "a").pixels.shape == (64, 80, 3)


def test_pixels_arrive_in_memory_of_their_own(folder: Path) -> None:
    """Pillow's memory is read-only, and freed with its image."""
    for name in ("a.png", "b.jpg", "below/d.tif"):
        pixels = read_picture(folder / "in" / name).pixels
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous
        assert pixels.dtype == np.uint8
