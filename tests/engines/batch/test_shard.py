"""Shards: disjoint and complete, the same on every machine, whatever else is in the folder."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agsr.engines.batch.shard import Shard
from agsr.errors import RequestError


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 40))
def test_every_file_is_in_exactly_one_shard(names: list[str], count: int) -> None:
    for name in names:
        try:
            path = PurePath(name)
            holders = [n for n in range(count) if Shard(n, count).contains(path)]
        except UnicodeEncodeError:  # half a surrogate pair, which no file system gives
            continue
        assert len(holders) == 1


def test_shards_are_about_equal() -> None:
    sizes = Counter(
        index
        for index in range(8)
        for number in range(4000)
        if Shard(index, 8).contains(PurePath(f"album/{number:05}.jpg"))
    )
    assert len(sizes) == 8
    assert 400 < min(sizes.values()) <= max(sizes.values()) < 600


def test_a_file_stays_in_its_shard_across_versions_and_systems() -> None:
    # Changing these values would make machines of two versions do files twice or never.
    names = ("a.jpg", "album/b.png", "Jörg.webp", "日本/写真.tif")
    found = [next(n for n in range(10) if Shard(n, 10).contains(PurePath(m))) for m in names]
    assert found == [9, 4, 4, 9]
    decomposed = PurePath("Jo\u0308rg.webp")
    assert Shard(4, 10).contains(decomposed)
    windows, posix = PureWindowsPath("album", "b.png"), PurePosixPath("album/b.png")
    assert all(Shard(n, 7).contains(windows) == Shard(n, 7).contains(posix) for n in range(7))


@pytest.mark.parametrize(
    ("text", "environment", "index", "count"),
    [
        ("0/1", {}, 0, 1),
        ("7/8", {"JOB_COMPLETION_INDEX": "3"}, 7, 8),
        ("auto/8", {"JOB_COMPLETION_INDEX": "3"}, 3, 8),
        ("auto/8", {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 0, 8),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "4", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}, 4, 5),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "10",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "10",
                "SLURM_ARRAY_TASK_COUNT": "10",
            },
            9,
            10,
        ),
        (
            "auto",  # --array=0-6:2
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "6",
                "SLURM_ARRAY_TASK_COUNT": "4",
            },
            2,
            4,
        ),
        (
            "auto/8",  # --array=2,5: tasks that are repeated
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_MIN": "2",
                "SLURM_ARRAY_TASK_MAX": "5",
                "SLURM_ARRAY_TASK_COUNT": "2",
            },
            5,
            8,
        ),
    ],
)
def test_index_and_count_are_given_or_the_clusters(
    text: str, environment: dict[str, str], index: int, count: int
) -> None:
    assert Shard.parse(text, environment) == Shard(index, count)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("8/8", {}, "8 shards are 0/8 to 7/8"),
        ("0/0", {}, "a count of 0"),
        ("1", {}, "expected INDEX/COUNT"),
        ("-1/4", {}, "expected INDEX/COUNT"),
        ("auto/4", {}, "none of JOB_COMPLETION_INDEX.* is set"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "no count .*SLURM_ARRAY_TASK_COUNT is set"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX is 'x'"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "4 shards are 0/4 to 3/4"),
        (
            "auto",  # --array=2,3,7 of an array of 8
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "2",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            "3 tasks from 2 to 7 are not the whole",
        ),
    ],
)
def test_a_wrong_shard_is_rejected(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Shard.parse(text, environment)
