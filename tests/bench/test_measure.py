"""`agsr doctor --measure`: from a benchmark to the times that `auto` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Processor

from agsr.bench import measure
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import Timing
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.cli import main
from agsr.engines import ranking
from agsr.engines.timings import BackendTiming, Timings
from agsr.errors import BackendError

SAMPLES = {"openvino bf16": 0.144, "openvino fp32": 0.576, "ort:cpu fp32": 0.72}


def _row(entry: Entry, rounds: tuple[float, ...]) -> Row:
    timing = Timing(
        workload="320x180",
        boundary="host",
        images=1,
        output_pixels=320 * 180 * 16,
        flops=None,
        rounds=tuple((seconds,) for seconds in rounds),
    )
    return Row(
        entry=entry,
        load_seconds=0.25,
        first_call_seconds=rounds[0] + 0.5,
        timings=(timing,),
    )


@pytest.fixture
def plans(
    tmp_path: Path, play_processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> list[BenchPlan]:
    """Plays the benchmark, on a machine with OpenVINO, bf16 units and a torch that fails."""
    seen: list[BenchPlan] = []

    def run(plan: BenchPlan, *_: Any) -> BenchResult:
        seen.append(plan)
        rows = []
        for entry in plan.entries:
            name = f"{entry.backend} {entry.precision}"
            failed = Row(entry=entry, error="it is broken")
            rows.append(_row(entry, (SAMPLES[name],) * 3) if name in SAMPLES else failed)
        return BenchResult(created="", command="", environment={}, rows=tuple(rows))

    here = ("openvino", "ort:cpu", "torch")
    monkeypatch.setattr(
        ranking, "missing_requirement", lambda place: "" if str(place) in here else "not here"
    )
    play_processor("avx512_bf16")
    monkeypatch.setattr(ranking, "_has_driver", lambda: False)
    monkeypatch.setattr(measure, "run", run)
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    return seen


def test_everything_here_is_timed_after_a_first_start(plans: list[BenchPlan]) -> None:
    found = measure.timings(measure.measure())
    assert [plan.rounds for plan in plans] == [0, 5]
    names = [f"{c.backend} {c.precision}" for c in plans[1].entries]
    assert names == [*SAMPLES, "torch bf16", "torch fp32"]
    assert found.times.keys() == SAMPLES.keys()
    assert found.times["ort:cpu fp32"] == BackendTiming(
        start=0.75, per_megapixel=pytest.approx(12.5)
    )  # type: ignore[arg-type]


def test_the_command_shows_and_saves_what_auto_uses(plans: list[BenchPlan]) -> None:
    done = CliRunner().invoke(main, ["doctor", "--measure"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = [words for words in lines if words and words[0] in ("ort:cpu", "openvino")]
    assert [row[0:2] + row[-1:] for row in rows[:3]] == [
        ["openvino", "bf16", "1.00"],
        ["openvino", "fp32", "4.00"],
        ["ort:cpu", "fp32", "5.00"],
    ]
    assert "it is broken" in done.stdout
    assert "auto uses it" in done.stdout
    saved = Timings.load()
    assert saved is not None
    assert ranking.candidates("psnr")[0].reason.endswith(saved.measured)
    assert len(plans) == 2


def test_noisy_times_are_not_saved() -> None:
    entry = Entry(backend="ort:cpu", weights="psnr", steps=4, precision="fp32")
    for rounds, sound in (((1.0, 1.2, 1.1), True), ((1.0, 1.9, 1.1), False), ((), False)):
        rows = (_row(entry, rounds),) if rounds else (Row(entry=entry, error="no"),)
        result = BenchResult(created="", command="", environment={}, rows=rows)
        if sound:
            assert measure.timings(result).times
            continue
        with pytest.raises(BackendError, match=r"±41%|no backend runs"):
            measure.timings(result)
