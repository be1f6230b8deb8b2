"""Wrong requests exit with 2, failures with 1; each has one line that says what to type."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import agsr


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer"], "Missing argument 'IN...'"),
        (["infer", "a.png", "--steps", "0"], "0 is not in the range 1<=x<=16"),
        (["infer", "a.png", "--tile", "big"], "neither 'auto' nor a number"),
        (["infer", "a.png", "--to", "big"], "'big' is not WIDTHxHEIGHT, like 1920x1080"),
        (["infer", "a.png", "--to", "0x9"], "'0x9' is not WIDTHxHEIGHT"),
        (["infer", "a.png", "--scale", "nan"], "scale is nan; expected above 0"),
        (["infer", "a.png", "--scale", "17"], "scale is 17.0; expected above 0, at most 16"),
        (["infer", "a.png", "--scale", "2", "--max-size", "9"], "exclude one another"),
        (["infer", "a.png", "--backend", "magic"], "'magic' is not one of"),
        (
            ["infer", "a.png", "--normal-map", "--separate-alpha"],
            "overlap: --normal-map implies --separate-alpha",
        ),
        (["infer", "a.png", "--normal-map", "--quality", "80", "-f", "webp"], "of any length"),
        (["infer", "a.png", "--normal-map", "-f", "avif"], "needs a lossless format; AVIF is none"),
        (["infer", "a.png", "-o", "b.png", "--ext", "same"], "name two formats; remove --ext"),
        (["export", "--precision", "int3"], "'int3' is not one of"),
        (["upscale"], "No such command 'upscale'"),
        (["train", "--set", "width"], "'width' is not NAME=VALUE"),
        (["train", "--model", "edsr"], "'edsr' is not one of"),
        (["export", "--blend", "1.5"], "1.5 is not in the range"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(arguments: list[str], message: str) -> None:
    result = agsr(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "rgba.png", "--separate-alpha", "-f", "bmp"], "Error: rgba.png: its alpha is"),
        (["infer", "/dev/zero", "-o", "x.png"], "Error: /dev/zero: not a regular file"),
        (["infer", "*.xyz"], "Error: *.xyz: no image in it"),
        (["export", "-s", "1", "-o", "a.png/x.onnx"], "Error: a.png: Not a directory"),
        (["train", "--data", "a.png", "--val", "."], "Error: a.png: expected a folder"),
        (["infer", "a.png", "-w", "text.onnx"], "Error: text.onnx: not an ONNX file"),
        (["infer", "gone.png"], "Error: gone.png: no such file"),
    ],
)
def test_what_is_understood_and_fails_exits_1_with_one_line(
    arguments: list[str], message: str
) -> None:
    result = agsr(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


_TRAIN = ["train", "--data", ".", "--val", "."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "a.png", "-w", "nobody"], "no weights named 'nobody'; shipped: gan"),
        (["infer", "a.png", "-w", "nobody", "-b", "torch"], "no weights named 'nobody'"),
        (["export", "-w", "nobody"], "no weights named 'nobody'"),
        (["export", "--blend", "0.5", "--with", "nobody"], "no weights named 'nobody'"),
        (["eval", "-w", "nobody"], "no weights named 'nobody'"),
        (["bench", "-w", "nobody"], "no weights named 'nobody'"),
        ([*_TRAIN, "--stage", "gan", "--init", "nobody"], "no weights named 'nobody'"),
        (["eval", "--set", "Set99"], "no image set 'Set99'"),
        (["eval"], "with --data or AGSR_DATA. Type: agsr eval --fetch\n"),
        (["bench", "--set", "Set14", "-s", "1"], ". Type: agsr bench --set Set14 -s 1 --fetch\n"),
        (["bench", "--table1"], "--fetch (needs agsr[bench]), or name the folder that holds Set5"),
        (["bench", "--set", "Set99"], "no image set 'Set99'"),
        (["infer", "a.png", "-b", "magic"], "'magic' is not one of"),
        (["bench", "-b", "magic"], "no backend 'magic'; known: "),
        (["bench", "-b", "ort:magic"], "no backend 'ort:magic'; known: "),
        (["infer", "a.png", "--precision", "fp8"], "'fp8' is not one of"),
        (["bench", "--precision", "fp8"], "'fp8' is not one of"),
        (["infer", "a.png", "-b", "triton"], "needs the address of a server: --url grpc"),
        (["infer", "a.png", "--url", "host:8001"], "--url host:8001: not a Triton server's"),
        (["infer", "a.png", "--url", "grpc://h", "--devices", "cpu:2"], "the server computes"),
        (["eval", "--set", ".", "-b", "ort", "--url", "grpc://h"], "--url does not belong to"),
        (["serve", "-b", "triton"], "needs the address of a server: --url grpc"),
        (["bench", "--backends", "triton"], "--backends triton needs --url"),
        (["bench", "--backends", "ort", "--url", "grpc://h"], "--url is for --backends triton"),
        (["bench", "--hints", "x=1", "--model", "gone.onnx"], "no hint named 'x'; expected"),
        (["bench", "--plot", "x.gif", "--set", "."], "x.gif: expected a name in .svg"),
        (["infer", "a.png", "-b", "openvino", "--device", "cuda:0"], "known: cpu, gpu, npu"),
        (["infer", "a.png", "-b", "ort", "--device", "mps"], "no --device mps; known: cpu, cuda"),
        (["infer", "a.png", "-b", "trt", "--device", "cuda:٣"], "no --device cuda:٣; known: cuda"),
        (["infer", "a.png", "-b", "trt", "--threads", "2"], "--threads is for ort and openvino"),
        (["infer", "a.png", "-b", "trt", "--device", ""], "the device is empty"),
        (["infer", "a.png", "b.jpg", "-o", "x.png"], "2 inputs can't all become x.png"),
        (["infer", "a.png", "-o", "x.gif"], "can't write .gif"),
        (["infer", "a.png", "--quality", "80"], "a_x4.png: PNG has no quality setting"),
        (["infer", "a.png", "--suffix", "x/y"], "a suffix is part of a file name"),
        (["infer", "."], "Error: .: a folder; add -r to upscale the images in it"),
        (["infer", "b.jpg", "-o", "b.jpg"], "b.jpg: its result b.jpg would replace an input"),
        (["infer", "a.png", "-o", "hard.png"], "a.png: its result hard.png would replace an"),
        (["infer", "a.png", "b.jpg", "-f", "same", "--suffix", ""], "b.jpg: its result b.jpg"),
        (["infer", "a.png", "-w", "gone.onnx"], "gone.onnx: no such file"),
        (["infer", "a.png", "-w", "./gone.onnx", "-b", "openvino"], "gone.onnx: no such file"),
        (["infer", "a.png", "-w", "gone.engine"], "gone.engine: no such file"),
        (["infer", "a.png", "-w", "b.jpg"], "b.jpg: an image by its name, not weights; shipped"),
        (["infer", "a.png", "-w", "./b.jpg"], "b.jpg: an image by its name, not weights; shipped"),
        (["infer", "a.png", "-w", "./b.jpg", "-b", "torch"], "b.jpg: an image by its name, not"),
        (["infer", "a.png", "-w", "x/a.mp4", "-b", "ort"], "x/a.mp4: no such file"),
        (["infer", "a.png", "-w", "psnr:gan:2"], "the share is '2'; expected FIRST:SECOND:SHARE"),
        (
            ["infer", "a.png", "-w", "psnr:gan:1", "--precision", "int8", "-b", "ort"],
            "use fp16",
        ),
        (
            ["infer", "a.png", "-b", "torch", "--precision", "int8"],
            "torch runs in fp32, fp16, bf16",
        ),
        (["infer", "a.png", "-b", "torch", "--device", "warp"], "can't use the device 'warp'"),
        (["eval", "--data", "gone"], "gone: no such folder"),
        (["eval", "--set", "LRx4"], "LRx4: a folder of LR images by its name; name the folder"),
        (["eval", "--set", "empty"], "empty: no images in this folder"),
        (["eval", "--lpips", "gone.npz"], "gone.npz: no such file"),
        (["bench", "--precision", "int8", "-b", "torch"], "torch runs in fp32, fp16, bf16, not"),
        (["export", "-w", "gone.safetensors"], "gone.safetensors: no such file"),
        (["export", "--opset", "18", "--precision", "bf16"], "opset is 18; expected 22 to"),
        (
            ["export", "--precision", "int8", "--calibrate", "gone"],
            "gone: no such file; expected a",
        ),
        (["export", "--triton", "x", "-o", "a b.onnx"], "'a b' can't name a Triton model"),
        (["train", "--data", "gone.tar", "--val", "."], "gone.tar: no such file; expected a"),
        (["train", "--data", ".", "--val", "gone"], "gone: no such file; expected a folder"),
        (["train", "--data", ".", "--val", ".", "--features", "gone"], "gone: no such file"),
        ([*_TRAIN, "--device", "warp"], "can't use the device 'warp'"),
        ([*_TRAIN, "--schedule", "99x1"], "the schedule doesn't fit the model"),
        (["build", "gone.onnx"], "gone.onnx: no such file"),
        ([*_TRAIN, "--set", "a=1"], "invalid configuration"),
        ([*_TRAIN, "--stage", "gan", "--model", "srcnn"], "invalid configuration"),
        ([*_TRAIN, "--schedule", "much"], "invalid configuration"),
    ],
)
def test_a_wrong_request_exits_2(
    small_files: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGSR_DATA", raising=False)
    (small_files / "hard.png").hardlink_to(small_files / "a.png")
    before = sorted(small_files.rglob("*"))
    result = agsr(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert sorted(small_files.rglob("*")) == before
