"""``agsr bench`` as users type it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_results import simulate
from click.testing import CliRunner, Result
from conftest import PHOTO

from agsr.bench.runner import run as bench_run
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.plan import BenchPlan
from agsr.bench.runner.results import BenchResult, Row
from agsr.cli import main


def _agsr(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a set of one small image, and a set of the same name elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGSR_DATA", raising=False)
    for place in ("Mini", "other/Mini"):
        (tmp_path / place).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place / "a.png"), cv2.imread(str(PHOTO))[:48, :64])
    (tmp_path / "file").touch()
    return tmp_path


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[BenchPlan]:
    """Plans that would have been run."""
    seen: list[BenchPlan] = []

    def stand_in(plan: BenchPlan, _: object) -> BenchResult:
        seen.append(plan)
        rows = (Row(entry=Entry(backend="ort", weights="psnr"), device="cpu"),)
        return BenchResult(created="", command=plan.command, environment={}, rows=rows)

    monkeypatch.setattr(bench_run, "run", stand_in)
    return seen


def test_help_of_both_commands() -> None:
    shown = _agsr("--help")
    assert shown.exit_code == 0
    for option in ("--set", "--backends", "--rounds", "--json", "compare"):
        assert option in shown.stdout
    assert "--max-regression" in _agsr("compare", "--help").stdout


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "320"], "'320' is neither WIDTHxHEIGHT nor 'set'"),
        (["--size", "0x5"], "'0x5' is neither"),
        (["--size", "8x8,"], "'' is neither"),
        (["--size", "-1x5"], "'-1x5' is neither"),
        (["--size", "8x8x8"], "'8x8x8' is neither"),
        (["--size", "set"], "--size set needs a --set"),
        (["-b", ""], "empty; expected at least one"),
        (["-w", ","], "empty; expected at least one"),
        (["-s", "1,0"], "0 is not in the range"),
        (["-s", "one"], "'one' is not a valid integer"),
        (["--precision", "fp32,fp64"], "'fp64' is not one of"),
        (["--rounds", "-1"], "-1 is not in the range"),
        (["--rounds", "0"], "--rounds 0 leaves speed out, and there is no --set to score"),
        (["--plot", "x.svg"], "--plot needs scores and times: a --set"),
        (["--plot", "x.svg", "--set", "Mini", "--rounds", "0"], "and --rounds of 1 or more"),
        (["--plot", "x.svg", "--table1"], "--plot needs scores and times"),
        (
            ["--hints", "order=bgr"],
            "--hints describe another project's ONNX file, and there is none",
        ),
        (["--fetch"], "--fetch gets a --set, and there is none"),
        (["--data", "."], "--data is where a --set lies, and there is none"),
        (["--lpips", "x.npz"], "--lpips scores a --set, and there is none"),
        (["--table1", "--set", "Mini"], "--table1 and --set contradict one another"),
        (["--table1", "--rounds", "5"], "--table1 and --rounds contradict one another"),
        (["--set", "Mini", "--rounds", "0", "--batch", "1"], "--batch has no effect: --rounds 0"),
        (["--boundary", "gpu"], "'gpu' is not one of"),
        (["--batch", "0"], "0 is not in the range"),
        (["--set", "Mini", "--set", "other/Mini"], "two sets of one name: Mini, Mini"),
        (["-w", "psnr,gone.onnx"], "Error: gone.onnx: no such file"),
        (["--model", "gone.onnx"], "Error: gone.onnx: no such file"),
        (["--set", "Mini", "--lpips", "gone.npz"], "Error: gone.npz"),
        (["--steps", "1,17", "-b", "ort,openvino"], "17"),
        (["-w", "psnr", "--precision", "fp32,int8", "-b", "torch"], "torch runs in fp32, fp16, bf"),
        (["compare", "gone.json", "gone.json"], "File 'gone.json' does not exist."),
        (["compare", "file", "a.json"], "File 'a.json' does not exist."),
        (["compare", "file"], "Missing argument 'NEW'"),
        (["compare", "file", "file", "--max-regression", "much"], "'much' is not a share"),
        (["compare", "file", "file", "--max-regression", "-5%"], "'-5%' is not a share"),
        (["compare", "file", "file", "--max-regression", "5"], "'5' is not a share like 5%"),
        (["compare", "file", "file", "--max-psnr-loss", "-1"], "-1.0 is not in the range"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(
    plans: list[BenchPlan], arguments: list[str], message: str
) -> None:
    result = _agsr(*arguments)
    assert (result.exit_code, plans) == (2, [])
    assert message in result.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "file/x.json"], "Error: file: Not a directory"),
        (["--json", "Mini"], "Error: Mini: Is a directory"),
        (["--markdown", "file/x.md"], "Error: file: Not a directory"),
        (["--html", "Mini"], "Error: Mini: Is a directory"),
        (["--set", "Mini", "--plot", "file/x.svg"], "Error: file: Not a directory"),
        (["compare", "file", "file"], "Error: file: not a benchmark result"),
    ],
)
def test_failures_exit_1_with_one_line_before_anything_runs(
    folder: Path, plans: list[BenchPlan], arguments: list[str], message: str
) -> None:
    before = sorted(folder.rglob("*"))
    result = _agsr(*arguments)
    assert (result.exit_code, plans) == (1, []), result.output
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("folder")
def test_options_become_a_plan(plans: list[BenchPlan]) -> None:
    assert _agsr("--size", "32x18, 8X6,32x18", "--boundary", "both", "--batch", "2").exit_code == 0
    assert plans[0].sizes == ((18, 32), (6, 8))
    assert plans[0].boundaries == ("host", "device")
    assert [x.name for x in plans[0].workloads()] == ["2x32x18", "2x8x6"]
    assert len(plans[0].entries) == 1 + 4 * 3
    options = ("--size", "set", "--set", "Mini", "--set", "./Mini", "--rounds", "7", "-s", "2,2")
    assert _agsr(*options, "-b", "ort,ort", "-j", "1").exit_code == 0
    assert (plans[1].sizes, plans[1].rounds, len(plans[1].sets)) == ((), 7, 1)
    assert plans[1].timed_sets == plans[1].sets
    assert [c.label for c in plans[1].entries] == ["bicubic", "ort psnr 2 steps"]
    assert plans[1].entries[1].threads == 1


@pytest.mark.usefixtures("folder", "plans")
def test_the_files_that_were_written_are_named() -> None:
    result = _agsr("--set", "Mini", "--json", "a.json", "--markdown", "a.md")
    assert result.stderr.splitlines() == ["written: a.json", "written: a.md"]


@pytest.mark.usefixtures("folder")
def test_quality_alone_needs_no_rounds(plans: list[BenchPlan]) -> None:
    assert _agsr("--set", "Mini", "--rounds", "0").exit_code == 0
    assert plans[0].rounds == 0


@pytest.mark.usefixtures("folder")
def test_an_interrupted_run_without_data_skips_its_plot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = (Row(entry=Entry(backend="ort", weights="psnr"), device="cpu"),)
    found = BenchResult(created="", command="", environment={}, rows=rows, complete=False)
    monkeypatch.setattr(bench_run, "run", lambda *_: found)
    result = _agsr("--set", "Mini", "--plot", "x.svg", "--json", "x.json")
    assert result.exit_code == 130
    assert "x.svg: not written, nothing to plot" in result.stderr
    assert Path("x.json").exists()
    assert not Path("x.svg").exists()


@pytest.mark.usefixtures("folder")
def test_names_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets are no markup, and words between colons no emoji."""
    rng = np.random.default_rng(0)
    old = simulate(rng)
    named = replace(old.rows[1].entry, weights="set:smile:/model[v2].onnx")
    rows = (replace(old.rows[1], entry=named),)
    found = replace(old, rows=rows)
    monkeypatch.setattr(bench_run, "run", lambda *_: found)
    assert "ort set:smile:/model[v2].onnx " in _agsr("--set", "Mini").stdout
    assert "ort set:smile:/model[v2].onnx on Mini" in _compare(found, found).stdout


def _compare(old: BenchResult, new: BenchResult, *options: str) -> Result:
    for name, result in (("old.json", old), ("new.json", new)):
        Path(name).write_text(result.to_json())
    return _agsr("compare", "old.json", "new.json", *options)


@pytest.mark.usefixtures("folder")
def test_compare_fails_where_something_became_worse() -> None:
    rng = np.random.default_rng(0)
    before = simulate(rng)
    same = _compare(before, simulate(rng))
    assert (same.exit_code, "slower" in same.stdout) == (0, False)
    slow = simulate(rng, slowdown=1.2)
    found = _compare(before, slow)
    assert found.exit_code == 1
    assert "slower by more than 5%: torch on Mini" in found.stdout
    assert _compare(before, slow, "--max-regression", "0.5").exit_code == 0
    worse = _compare(before, simulate(rng, psnr=29.9))
    assert (worse.exit_code, "PSNR fell by more than 0.01 dB: ort on Mini" in worse.stdout) == (
        1,
        True,
    )
    assert _compare(before, simulate(rng, psnr=29.9), "--max-psnr-loss", "0.2").exit_code == 0
    gone = _compare(before, replace(before, rows=before.rows[:2]))
    assert gone.exit_code == 1
    assert "missing in the new run: speed of torch on Mini" in gone.stdout


@pytest.mark.usefixtures("folder")
def test_compare_fails_where_a_row_ran_in_another_way() -> None:
    before = simulate(np.random.default_rng(0))
    alone = tuple(replace(x, entry=replace(x.entry, threads=1)) for x in before.rows)
    found = _compare(before, replace(before, rows=alone))
    assert found.exit_code == 1
    assert "not compared: ort: threads was one per core, is 1" in found.stdout
    assert "slower" not in found.stdout


@pytest.mark.usefixtures("folder")
def test_compare_suggests_more_rounds_when_in_doubt() -> None:
    rng = np.random.default_rng(0)
    found = _compare(simulate(rng, rounds=2), simulate(rng, rounds=2, slowdown=1.3))
    assert found.exit_code == 0
    assert "perhaps slower; use more --rounds to find out: torch on Mini" in found.stdout
