"""A benchmark from its plan to its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bench_results import validate
from conftest import PHOTO
from processes import children
from stubs import FIRST_CALL, InProcessWorker, Stub

from agsr.bench.data.sets import ImageSet, find_set
from agsr.bench.report.tables import tables
from agsr.bench.runner import entry_run, peak_flops
from agsr.bench.runner.entries import Entry, expand
from agsr.bench.runner.entry_run import MAX_CALLS
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.runner.run import run
from agsr.bench.scoring import compare, evaluate
from agsr.bicubic import upscale
from agsr.engines.upscaler import Upscaler
from agsr.pretrained import find_onnx


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """A colour image and a grey one."""
    folder = tmp_path_factory.mktemp("sets") / "Mini"
    folder.mkdir()
    photo = cv2.imread(str(PHOTO))[20:64, 30:90]
    cv2.imwrite(str(folder / "colour.png"), photo)
    cv2.imwrite(str(folder / "grey.png"), photo[..., 1])
    return find_set(str(folder))


@contextmanager
def in_process_workers() -> Iterator[None]:
    """Entries without worker processes, and small products."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_run, "Worker", InProcessWorker)
        patch.setattr(peak_flops, "SIDE", 256)
        yield


@pytest.fixture
def workers_in_process() -> Iterator[None]:
    with in_process_workers():
        yield


def _plan(*entries: Entry, **options: Any) -> BenchPlan:
    return BenchPlan(entries=entries, **{"sizes": ((6, 8),), "turn_seconds": 0.0, **options})


@pytest.fixture(scope="module")
def measured(mini: ImageSet, checkpoint_file: Path) -> BenchResult:
    """Two precisions of a checkpoint on torch, and a graph on ONNX Runtime."""
    graph = str(find_onnx("psnr", 2))
    found = [
        *expand(
            backends=["torch"],
            weights=[str(checkpoint_file)],
            steps=[2],
            precisions=["fp32", "bf16"],
        ),
        Entry(backend="ort", weights=graph, precision="fp32"),
    ]
    options = {"sets": (mini,), "timed_sets": (mini,), "boundaries": ("host", "device")}
    with in_process_workers():
        return run(_plan(*found, rounds=3, turn_seconds=0.01, **options))


def _row(result: BenchResult, backend: str, precision: str | None = None) -> Row:
    (found,) = (
        row
        for row in result.rows
        if (row.entry.backend, row.entry.precision) == (backend, precision)
    )
    return found


def test_scores_are_those_of_an_evaluation(measured: BenchResult, mini: ImageSet) -> None:
    for row in measured.rows[1:]:
        assert row.error == ""
        upscaler = Upscaler(backend=row.entry.open())
        expected = [(x.image, x.scores.psnr, x.scores.ssim) for x in evaluate(upscaler, mini)]
        (score,) = row.quality
        assert [(x.image, x.scores.psnr, x.scores.ssim) for x in score.images] == expected
    (score,) = measured.rows[0].quality
    assert [x.scores for x in score.images] == [compare(upscale(x.lr), x.hr) for x in mini]


def test_parity_is_zero_for_the_reference_and_not_for_others(measured: BenchResult) -> None:
    assert _row(measured, "bicubic").quality[0].parity is None
    for reference in (_row(measured, "torch", "fp32"), _row(measured, "ort", "fp32")):
        parity = reference.quality[0].parity
        assert parity is not None
        assert (parity.largest, parity.mean, parity.psnr_change) == (0, 0, 0)
    parity = _row(measured, "torch", "bf16").quality[0].parity
    assert parity is not None
    assert 0 < parity.mean < parity.largest < 8
    assert 0 < abs(parity.psnr_change) < 1


def test_every_row_has_all_rounds_of_every_workload(measured: BenchResult) -> None:
    jobs = [(name, where) for name in ("8x6", "Mini") for where in ("host", "device")]
    for row in measured.rows:
        assert [(x.workload, x.boundary) for x in row.timings] == jobs
        for timing in row.timings:
            assert len(timing.rounds) == 3
            assert len({len(samples) for samples in timing.rounds}) == 1
            assert 1 <= len(timing.rounds[0]) <= MAX_CALLS
            assert min(timing.samples) > 0
        assert [x.images for x in row.timings] == [1, 1, 2, 2]
        assert [x.output_pixels for x in row.timings] == [768, 768, 2 * 44 * 60, 2 * 44 * 60]
    flops = [[timing.flops for timing in row.timings] for row in measured.rows]
    assert flops[0] == [None] * 4  # bicubic
    assert flops[1] == flops[2]
    assert None not in flops[1]
    assert flops[3][0] == flops[3][1] == pytest.approx(flops[3][2] * 48 / (2 * 11 * 15))  # type: ignore[operator]


def test_products_are_measured_in_the_same_rounds(measured: BenchResult) -> None:
    kinds = {(x.library, x.precision): x for x in measured.peaks}
    assert set(kinds) == {("torch", "fp32"), ("torch", "bf16"), ("onnxruntime cpu", "fp32")}
    assert all(len(x.rounds) == 3 and x.flops == 2 * 256**3 for x in kinds.values())
    network, bicubic = _row(measured, "ort", "fp32"), _row(measured, "bicubic")
    assert measured.share(network, network.timings[0]) > 0  # type: ignore[operator]
    assert measured.peak(bicubic) is None


def test_the_record_names_what_ran_and_matches_the_schema(
    measured: BenchResult, tmp_path: Path
) -> None:
    for row in measured.rows:
        assert row.load_seconds is not None
        assert row.first_call_seconds is not None
        assert row.peak_memory is not None
        assert row.device_memory is None
    assert (_row(measured, "torch", "bf16").device, _row(measured, "ort", "fp32").steps) == (
        "cpu",
        2,
    )
    assert measured.reference == "ort cpu fp32 or torch cpu fp32"
    assert measured.complete
    assert "cores" in measured.environment
    validate(json.loads(measured.to_json()))
    (tmp_path / "x.json").write_text(measured.to_json())
    assert BenchResult.load(tmp_path / "x.json") == measured


@pytest.mark.usefixtures("workers_in_process")
def test_a_reference_that_is_not_listed_is_compared_with_all_the_same(
    measured: BenchResult, mini: ImageSet
) -> None:
    alone = _row(measured, "torch", "bf16")
    result = run(_plan(alone.entry, sets=(mini,), rounds=0))
    (row,) = result.rows
    assert row.quality == alone.quality
    assert row.timings == ()


@pytest.mark.usefixtures("workers_in_process")
def test_a_reference_that_cannot_run_is_noted(mini: ImageSet, tmp_path: Path) -> None:
    result = run(
        _plan(Stub(backend="good", weights=str(tmp_path / "x.onnx")), sets=(mini,), rounds=0)
    )
    assert result.rows[0].quality[0].parity is not None
    broken = Stub(backend="good", weights="x.onnx", good_calls=-1)
    result = run(_plan(broken, sets=(mini,), rounds=0))
    assert result.notes == ("no parity: the reference is not here",)
    assert result.rows[0].quality[0].parity is None
    assert result.rows[0].error == ""


@pytest.mark.usefixtures("workers_in_process")
@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_graph_of_another_precision_is_no_reference(mini: ImageSet, backend: str) -> None:
    graph = Stub(backend=backend, weights="x-fp16.onnx", arithmetic="fp16")
    result = run(_plan(graph, Stub(backend="good", weights="y.onnx"), sets=(mini,), rounds=0))
    half, single = (row.quality[0].parity for row in result.rows)
    assert half is None
    assert single is not None
    assert result.notes == ("no parity: x-fp16.onnx runs in fp16 only, not in fp32",)
    assert result.reference == "ort cpu fp32"
    alone = run(_plan(graph, sets=(mini,), rounds=0))
    assert alone.reference == ""


@pytest.mark.usefixtures("workers_in_process")
def test_a_size_that_is_too_large_for_one_entry_costs_it_nothing_else(mini: ImageSet) -> None:
    entry = Stub(backend="small", weights="x.onnx")
    plan = _plan(
        entry,
        sets=(mini,),
        sizes=((6, 8), (20, 20), (9, 9)),
        boundaries=("host", "device"),
        rounds=2,
    )
    (row,) = run(plan).rows
    assert [timing.workload for timing in row.timings] == ["8x6", "8x6", "9x9", "9x9"]
    assert row.error == "Mini colour, Mini grey, 20x20: too large"
    assert row.quality == ()


@pytest.mark.usefixtures("workers_in_process")
def test_each_goes_first_in_turn() -> None:
    InProcessWorker.calls = ()
    run(_plan(*(Stub(backend=name, weights="x") for name in "abc"), rounds=4))
    labels = [label.split()[0] for method, label in InProcessWorker.calls if method == "time"]
    assert "".join(labels) == "abc" + "abc" + "bca" + "cab" + "abc"  # first calls, then rounds
    methods = [method for method, _ in InProcessWorker.calls]
    assert methods.index("matrix_product") > methods.index("time")
    assert methods.count("matrix_product") == 4 * 3


@pytest.mark.usefixtures("workers_in_process")
def test_memory_is_read_before_any_product(mini: ImageSet) -> None:
    """The product's matrices are in one process of each kind only."""
    InProcessWorker.calls = ()
    run(_plan(*(Stub(backend=name, weights="x.onnx") for name in "ab"), sets=(mini,), rounds=2))
    methods = [method for method, label in InProcessWorker.calls if not label.startswith("ort")]
    assert methods.count("peak_memory") == 2
    last_read = max(i for i, method in enumerate(methods) if method == "peak_memory")
    assert last_read < methods.index("matrix_product")


@pytest.mark.usefixtures("workers_in_process")
def test_the_first_call_is_the_first_of_all(mini: ImageSet) -> None:
    slow = Stub(backend="slow at first", weights="x.onnx")
    for sets in ((mini,), ()):
        (row,) = run(_plan(slow, sets=sets, parity=False, rounds=1)).rows
        assert row.first_call_seconds is not None
        assert row.first_call_seconds > FIRST_CALL
    (row,) = run(_plan(slow, sets=(mini,), parity=False, rounds=0)).rows
    assert row.first_call_seconds is not None


@pytest.mark.usefixtures("workers_in_process")
def test_progress_grows_to_the_end(mini: ImageSet) -> None:
    shares: list[float] = []
    entries = [Stub(backend=name, weights="x.onnx") for name in ("a", "absent", "b")]
    plan = _plan(*entries, sets=(mini,), rounds=2)
    run(plan, lambda _, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.9 < shares[-1] < 1


def _interrupt_at(text: str, times: int = 1) -> Callable[[str, float], None]:
    seen: list[str] = []

    def notify(what: str, _: float) -> None:
        seen.extend([what] * (text in what))
        if len(seen) == times:
            raise KeyboardInterrupt

    return notify


@pytest.mark.usefixtures("workers_in_process")
def test_ctrl_c_saves_finished_rounds_and_sets(mini: ImageSet) -> None:
    entries = [Stub(backend=name, weights="x.onnx") for name in "ab"]
    result = run(_plan(*entries, sets=(mini,), rounds=5), _interrupt_at("round 3", times=2))
    assert not result.complete
    assert [len(row.timings[0].rounds) for row in result.rows] == [3, 2]
    assert all(row.quality[0].set == "Mini" and not row.error for row in result.rows)
    result = run(_plan(*entries, sets=(mini,), rounds=5), _interrupt_at("Mini grey"))
    assert [(row.quality, row.timings) for row in result.rows] == [((), ())] * 2
    assert not result.complete


@pytest.mark.usefixtures("workers_in_process")
def test_the_observer_sees_every_scored_image(mini: ImageSet) -> None:
    seen = []
    plan = _plan(
        Entry(backend="bicubic"),
        sets=(mini,),
        rounds=0,
        observer=lambda name, image, entry, sr: seen.append((name, image.name, entry, sr)),
    )
    run(plan)
    assert [(name, image, entry.label) for name, image, entry, _ in seen] == [
        ("Mini", "colour", "bicubic"),
        ("Mini", "grey", "bicubic"),
    ]
    for (*_, sr), image in zip(seen, mini, strict=True):
        assert np.array_equal(sr, upscale(image.lr))


@pytest.mark.usefixtures("workers_in_process")
def test_gpu_memory_is_what_each_added(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([100, 150, 150, 180, 180, 200, 200, 207])
    monkeypatch.setattr(entry_run, "device_memory", lambda: next(used))
    result = run(_plan(*(Stub(backend=f"{x}:cuda", weights="x") for x in "ab"), rounds=1))
    assert [row.device_memory for row in result.rows] == [50 + 20, 30 + 7]


def test_a_failure_is_a_row_with_its_reason_and_the_others_continue(mini: ImageSet) -> None:
    """In real processes: one can't start, one dies at the second image, one in the rounds."""
    before = children()
    entries = (
        Stub(backend="absent", weights="a.onnx"),
        Stub(backend="killed", weights="b.onnx", good_calls=1),
        Stub(backend="aborts", weights="c.onnx", good_calls=2 + 2 + 2),
        Stub(backend="good", weights="d.onnx"),
    )
    result = run(_plan(*entries, sets=(mini,), rounds=3))
    absent, killed, aborts, good = result.rows
    assert (absent.error, absent.device) == ("it is not here; get it somewhere else", "")
    assert killed.error.startswith(
        "Mini grey: the worker process was killed (SIGKILL), probably out of memory"
    )
    assert aborts.error == "the worker process crashed (SIGABRT)"
    assert (killed.quality, killed.timings) == ((), ())  # its set was not finished
    assert len(aborts.timings[0].rounds) == 2
    assert good.error == ""
    assert len(good.timings[0].rounds) == 3
    for row in (aborts, good):
        assert [image.image for image in row.quality[0].images] == ["colour", "grey"]
    assert result.complete
    assert children() == before


@pytest.mark.usefixtures("workers_in_process")
def test_a_bad_image_costs_itself_only_and_the_result_says_so(mini: ImageSet) -> None:
    bad = mini.files[0].with_name("bad.png")
    images = replace(mini, files=(*mini.files, bad), notes=("used like this",))
    result = run(_plan(Entry(backend="bicubic"), sets=(images,), timed_sets=(images,), rounds=1))
    (row,) = result.rows
    (score,) = row.quality
    assert [image.image for image in score.images] == ["colour", "grey"]
    assert [(found.image, str(bad) in found.reason) for found in score.skipped] == [("bad", True)]
    assert {timing.images for timing in row.timings} == {1, 2}  # a size, and the set
    assert result.skipped == 1
    assert result.notes[0] == "Mini: used like this"
    assert "Mini: 1 of 3 images skipped: " in result.notes[1]
    assert tables(result)[0].title == "Mini, quality, mean of 2 of 3 images"
    validate(json.loads(result.to_json()))
    empty = (ImageSet("Bad", (bad,)),)
    only_bad = run(_plan(Entry(backend="bicubic"), sets=empty, timed_sets=empty, sizes=()))
    assert (only_bad.skipped, only_bad.rows[0].quality, only_bad.rows[0].timings) == (1, (), ())
