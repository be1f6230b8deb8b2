"""Plans of batches over small files, for the tests of plans and of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from agsr.engines.batch.plan import Job, plan


def jobs_of(*sources: str, **options: object) -> list[Job]:
    return plan([Path(s) for s in sources], **options)  # type: ignore[arg-type]


def targets_of(*sources: str, **options: object) -> list[str]:
    jobs = jobs_of(*sources, **options)
    assert [job.problem for job in jobs] == [None] * len(jobs)
    return [str(job.target) for job in jobs]


def problems_of(*sources: str, **options: object) -> list[str | None]:
    return [job.problem for job in jobs_of(*sources, **options)]


def make_image(name: str, width: int = 6, height: int = 4) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(name)


def make_results(jobs: Sequence[Job], scale: int = 4) -> None:
    """Stands in for a run."""
    for job in jobs:
        with Image.open(job.source) as image:
            make_image(str(job.target), image.width * scale, image.height * scale)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in folders, and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/x/b.PNG", "in/x/y/c.webp", "in/.hidden/d.png"):
        make_image(name)
    Path("in/notes.txt").touch()
    return tmp_path
