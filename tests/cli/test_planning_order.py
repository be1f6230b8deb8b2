"""Wrong inputs and outputs are reported before a network is opened whose scale isn't known yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import agsr
from foreign_graphs import repeating
from PIL import Image

from agsr.cli import network
from agsr.engines.weights_file import declared_scale

MakeFile = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.png", "b/x.png"):
        Path(name).parent.mkdir()
        Image.new("RGB", (6, 5), (90, 120, 60)).save(name)
    Path("empty").mkdir()
    repeating(tmp_path / "net.onnx", scale=2)
    return tmp_path


@pytest.fixture
def never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("the network was opened")

    monkeypatch.setattr(network, "open_upscaler", refuse)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent.png"], 1, "absent.png"),
        (["absent.png", "other.png"], 1, "2 failed"),
        (["-r", "nowhere"], 1, "nowhere"),
        (["a/x.png", "b/x.png", "-o", "out.png"], 2, "2 inputs can't all become out.png"),
        (["a/x.png", "-o", "a/x.png"], 2, "would replace an input"),
        (["a/x.png", "-f", "bmp", "--quality", "9"], 2, "quality"),
        (["a/x.png", "--crf", "20"], 2, "--crf"),
        (["-r", "empty"], 1, "no image in it"),
    ],
)
@pytest.mark.usefixtures("folder", "never_opened")
def test_a_wrong_request_does_not_open_the_network(
    arguments: list[str], status: int, message: str
) -> None:
    result = agsr("infer", *arguments, "-w", "net.onnx")
    assert result.exit_code == status, result.output
    assert message in result.stderr


@pytest.mark.usefixtures("folder")
def test_a_problem_is_reported_once_and_others_are_upscaled() -> None:
    result = agsr("infer", "absent.png", "a/x.png", "-w", "net.onnx")
    assert (result.exit_code, result.stdout) == (1, "a/x_x2.png\n")
    assert result.stderr.count("absent.png") == 1
    assert "1 failed" in result.stderr


def test_the_scale_of_weights_for_torch_is_known_once_they_were_loaded(
    folder: Path, community_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(folder / "cache"))
    path = str(community_file("compact-x2"))
    assert declared_scale(path) is None
    assert agsr("infer", "a/x.png", "-w", path).stdout == "a/x_x2.png\n"
    assert declared_scale(path) == 2
    monkeypatch.setattr("agsr.engines.network_facts._FORMAT", 0)  # as of another version
    assert declared_scale(path) is None
