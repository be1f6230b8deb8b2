"""What is asked for again, what isn't, and what messages contain."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agsr.store import filesystems, retry
from agsr.store.address import Address
from agsr.store.transfer import fetch_object

PHOTO = Address.parse("s3://photos/a.png")


class _Full:
    """A file system whose copies meet a full disk."""

    asked = 0

    def get_file(self, *_: str) -> None:
        self.asked += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    def _strip_protocol(self, path: str) -> str:
        return path


def test_a_full_disk_is_reported_at_once_and_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DELAYS", (0.0, 0.0))
    full = _Full()
    monkeypatch.setattr("agsr.store.transfer.filesystem", lambda _: full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch_object(PHOTO, tmp_path / "a.png")
    assert full.asked == 1
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["ENOSPC", "EDQUOT", "EROFS", "EISDIR", "ENOTDIR"])
def test_failures_of_a_disk_are_not_repeated(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DELAYS", (0.0, 0.0))
    asked: list[str] = []

    def request() -> None:
        asked.append(kind)
        raise OSError(getattr(errno, kind), kind)

    with pytest.raises(OSError, match=kind):
        retry.requested(PHOTO, request)
    assert asked == [kind]


def test_google_storage_is_asked_as_often_as_other_stores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    monkeypatch.setattr(retry, "DELAYS", (0.0, 0.0))
    monkeypatch.setitem(filesystems._OPTIONS, "gs", {"token": "anon"})
    asked: list[str] = []

    async def failing(*_: object, **__: object) -> None:
        asked.append("asked")
        raise gcsfs.retry.HttpError({"code": 503, "message": "busy"})

    address = Address.parse("gs://photos/a.png")
    system = filesystems.filesystem(address)
    monkeypatch.setattr(system, "_set_session", failing)
    with pytest.raises(OSError, match="in 3 attempts"):
        retry.requested(address, lambda: system.call("GET", "b/photos"))
    filesystems.forget_all()
    assert len(asked) == 3
    assert not caplog.records


@pytest.mark.parametrize("scheme", ["s3", "gs", "https", "sftp", "az"])
def test_messages_omit_secrets(scheme: str) -> None:
    address = Address.parse(f"{scheme}://KEY:SECRET@photos/a.png")
    assert "SECRET" not in f"{address} {address!r} {address.parent}"
    assert str(address).endswith("@photos/a.png")
