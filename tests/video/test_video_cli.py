"""The command line's results, progress and refusals where there are videos."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from clips import FAST, Clip, make
from conftest import PHOTO, Repeat
from PIL import Image

from agsr.cli import main
from agsr.cli.infer import infer
from agsr.cli.infer_video import CODEC_ALIASES, Lines, Pace, compression_note
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.engines.video.y4m import stream_video
from agsr.errors import VideoError
from agsr.system.progress import Progress
from agsr.video.packet_survey import STRONG


def test_folders_of_both_are_upscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.open(PHOTO).crop((0, 0, 20, 16)).save("in/a.png")
    make(Path("in/b.mp4"), Clip(frames=3))
    make(Path("in/c.avi"), Clip(frames=3, codec="mpeg4"))
    Path("in/bad.mkv").write_bytes(b"nothing")
    options = ("infer", "-r", "in", "-o", "out", "--steps", "1", "--preset", "ultrafast")
    dry = CliRunner().invoke(main, [*options, "--dry-run"])
    assert dry.stdout.splitlines() == [
        "in/a.png → out/a_x4.png",
        "in/b.mp4 → out/b_x4.mp4",
        "in/bad.mkv → out/bad_x4.mkv",
        "in/c.avi → out/c_x4.mkv",
    ]
    done = CliRunner().invoke(main, list(options))
    assert done.exit_code == 1
    assert done.stdout.split() == ["out/a_x4.png", "out/b_x4.mp4", "out/c_x4.mkv"]
    assert "Error: in/bad.mkv: not a video, or truncated" in done.stderr
    assert "3 upscaled, 1 failed" in done.stderr
    Path("in/bad.mkv").unlink()
    again = CliRunner().invoke(main, [*options, "--skip-existing"])
    assert (again.exit_code, again.stdout) == (0, "")
    assert "3 already there" in again.stderr
    other = CliRunner().invoke(main, [*options[:-2], "--ext", "webm", "-n"])
    assert "in/b.mp4 → out/b_x4.webm" in other.stdout
    assert "in/a.png → out/a_x4.png" in other.stdout


@pytest.mark.parametrize("option", ["--normal-map", "--separate-alpha"])
def test_options_of_textures_cost_videos_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), (128, 128, 255)).save("a.png")
    make(Path("b.mp4"), Clip(frames=2))
    done = CliRunner().invoke(main, ["infer", "a.png", "b.mp4", option, "--steps", "1"])
    assert (done.exit_code, done.stdout) == (1, "a_x4.png\n")
    reported = f"Error: b.mp4: {option} is for images, and this is a video; remove the option"
    assert reported in done.stderr.splitlines()
    upscaler = Upscaler(backend=Repeat(), normal_map=True)
    with pytest.raises(VideoError, match="is for images"):
        stream_video(upscaler, Path("b.mp4"), BytesIO(), VideoOptions())


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("b.mp4", "x.png", "a video can't become .png"),
        ("a.png", "x.mp4", "an image can't become a video"),
    ],
)
def test_images_and_videos_do_not_become_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(source).touch()
    done = CliRunner().invoke(main, ["infer", source, "-o", target])
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o x.mp4 --crf 60", "--crf 60: h264 accepts 0 to 51; smaller is better"),
        ("-o x.mov --codec av1 --crf 0", "--crf 0: av1 accepts 1 to 63; smaller is better"),
        ("-o x.mov --codec prores --crf 5", "--crf 5: prores has none; remove it, or use h264"),
        ("-o x.mkv --codec ffv1 --preset fast", "--preset fast: ffv1 has none; remove it"),
        ("--preset fastest", "--preset fastest: h264 has no such preset (Invalid argument); "),
        ("-o x.mkv --codec hevc --preset 1x", "expected ultrafast, superfast, veryfast, faster"),
        ("-o x.webm --preset fast", "--preset fast: vp9 has no such preset (Invalid argument)"),
        ("-o x.mkv --codec av1 --preset 99", "expected 0 (slow) to 13 (fast)"),
        ("-o x.webm --codec h264", "x.webm: WebM can't hold h264; use --codec av1 or vp9, or a n"),
        ("-o x.mp4 --codec prores", "x.mp4: MP4 can't hold prores; use --codec h264, hevc, av1"),
        ("-f webm --codec x265", "b_x4.webm: WebM can't hold hevc; use --codec"),
    ],
)
def test_options_that_no_source_could_be_encoded_with_exit_2_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agsr.cli.network.open_upscaler", None)
    Path("b.mp4").touch()  # what is in it makes no difference
    done = CliRunner().invoke(main, ["infer", "b.mp4", *options.split()])
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert "avcodec" not in done.stderr
    assert "lib" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]


def test_options_that_suit_one_of_several_containers_cost_the_other_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mov"):
        make(Path(name), Clip(frames=2))
    done = CliRunner().invoke(main, ["infer", "a.mp4", "b.mov", "-s", "1", "--codec", "prores"])
    assert (done.exit_code, done.stdout) == (1, "b_x4.mov\n")
    assert "Error: a_x4.mp4: MP4 can't hold prores; use --codec" in done.stderr


def test_codecs_have_their_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.mp4").touch()
    for name, meant in CODEC_ALIASES.items():
        option = next(found for found in infer.params if found.name == "codec")
        assert option.type.convert(name.upper(), option, None) == meant
    done = CliRunner().invoke(main, ["infer", "b.mp4", "-n", "--codec", "x264"])
    assert (done.exit_code, done.stdout) == (0, "b.mp4 → b_x4.mp4\n")
    shown = " ".join(CliRunner().invoke(main, ["infer", "--help"]).stdout.split())
    assert "x264 and x265 are h264 and hevc" in shown


def test_the_pace_leaves_out_what_was_kept() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.describe(Progress(48, 148, 48)) == "48/148 frames"
    now[0] = 10.0
    assert pace.describe(Progress(68, 148, 48)) == "68/148 frames  2.00 frames/s  40 s left"
    assert pace.describe(Progress(68, None, 48)) == "68/? frames  2.00 frames/s"


def test_without_a_terminal_a_line_now_and_then_tells_how_far_a_video_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = Lines("a\r.mp4", lambda: now[0])
    for second in range(71):
        now[0] = float(second)
        lines.update(Progress(second, 100, 0))
    assert capsys.readouterr().err.splitlines() == [
        "a\\r.mp4: 30/100 frames  1.00 frames/s  70 s left",
        "a\\r.mp4: 60/100 frames  1.00 frames/s  40 s left",
    ]


def test_what_a_video_can_not_become_is_reported_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    source, backend = make(tmp_path / "a.mp4", Clip(frames=3)), Repeat()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "same.mp4").hardlink_to(source)
    (tmp_path / "plain").touch()
    for target, reported in (
        ("folder.mp4", "Is a directory"),
        ("same.mp4", "is the same file"),
        ("plain/b.mp4", "Not a directory"),
    ):
        with pytest.raises(VideoError, match=reported):
            upscale_video(Upscaler(backend=backend), source, tmp_path / target, FAST)
    assert not backend.shapes


def test_a_disk_without_room_for_the_source_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path / "a.mp4", Clip(frames=3))
    usage = shutil.disk_usage(tmp_path)._replace(free=source.stat().st_size - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    upscale_video(Upscaler(backend=Repeat()), source, tmp_path / "b.mp4", FAST)
    assert f"{usage.free} bytes are free on its disk, and its source alone has" in caplog.text


def test_a_video_smaller_than_asked_is_reported_and_not_in_the_rate_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.mp4", Clip(frames=2))
    Image.open(PHOTO).crop((0, 0, 20, 16)).save("b.png")
    done = CliRunner().invoke(
        main, ["infer", "a.mp4", "b.png", "--steps", "1", "--max-size", "350"]
    )
    assert "note: 1 of 2 results are smaller" in done.stderr  # of 20 pixels, 320
    assert " for 1 image, " in done.stderr
    done = CliRunner().invoke(main, ["infer", "a.mp4", "--steps", "1", "--max-size", "9999"])
    assert "note: the result is smaller than was asked for" in done.stderr


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ("a.mp4 --quality 50", "--quality has no effect: no result is an image"),
        ("a.mp4 --ext png", "--ext has no effect: no result is an image"),
        ("p.png --ext mp4", "--ext has no effect: no result is a video file"),
        ("p.png --crf 10", "--crf has no effect: no result is a video file"),
        ("a.mp4 -o - --codec hevc", "--codec has no effect: no result is a video file"),
        ("- -o - --preset fast", "--preset has no effect: no result is a video file"),
    ],
)
def test_options_of_results_that_there_are_not_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, reported: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "p.png"):
        Path(name).touch()
    done = CliRunner().invoke(main, ["infer", *options.split()])
    assert (done.exit_code, reported in done.stderr) == (2, True), done.stderr
    mixed = CliRunner().invoke(
        main, ["infer", "a.mp4", "p.png", "--crf", "9", "--quality", "9", "-n", "--ext", "jpg"]
    )
    assert mixed.exit_code == 0, mixed.stderr


@pytest.mark.parametrize(("limit", "expected"), [(STRONG["h264"], 1), (0.0001, 0)])
def test_strongly_compressed_sources_are_known_by_their_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, expected: int
) -> None:
    monkeypatch.setitem(STRONG, "h264", limit)
    clip = Clip(width=320, height=240, frames=12, options={"crf": "45"})
    source, events = make(tmp_path / "a.mp4", clip), list[str]()

    class Runs(Repeat):
        def _run(self, lr: Any) -> Any:
            events.append("frame")
            return super()._run(lr)

    def note() -> None:
        events.append("note")

    upscaler = Upscaler(backend=Runs())
    upscale_video(upscaler, source, tmp_path / "b.mp4", FAST, blocky=note)
    stream_video(upscaler, source, BytesIO(), blocky=note)
    assert events.count("note") == 2 * expected
    assert (events[0] == "note") == bool(expected)


def test_other_weights_are_suggested_before_a_compressed_video_is_upscaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(STRONG, "h264", 1e6)
    make(Path("a.mp4"), Clip(frames=2))
    order: list[str] = []
    monkeypatch.setattr("agsr.cli.infer_video.echo_path", lambda path: order.append(str(path)))

    def note(_: str, weights: str) -> str:
        order.append(weights)
        return "n!"

    monkeypatch.setattr("agsr.cli.infer_video.compression_note", note)
    run = ["infer", "a.mp4", "--steps", "1", "--preset", "ultrafast"]
    done = CliRunner().invoke(main, run)
    assert order == ["psnr", "a_x4.mp4"]
    assert "n!" in done.stderr
    for option in (["-q"], ["-w", "photo"]):
        order.clear()
        assert CliRunner().invoke(main, [*run, *option]).exit_code == 0
        assert order == ["a_x4.mp4"]


def test_the_suggestion_names_the_weights() -> None:
    text = compression_note("a.mp4 has traces of compression", "psnr")
    assert text.startswith("note: a.mp4 has traces of compression, which psnr enlarges")
    assert "-w photo" in text
