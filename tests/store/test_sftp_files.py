"""Files of an SFTP server: all of them or an error, under their own names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agsr.errors import DatasetError
from agsr.store import filesystems, retry
from agsr.store.address import Address
from agsr.store.listing import Listings
from agsr.store.locations import complete, read_bytes
from agsr.store.mirror import fetched

sftp_servers = pytest.importorskip("sftp_servers", reason="paramiko is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("a.png", "deep/b.png", "deep/er/c.png"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "album"


@pytest.fixture
def address(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """The address of the album's folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retry, "DELAYS", (0.0,))
    with sftp_servers.paramiko_server(tmp_path / "home") as server:
        yield Address.parse(f"{server}{album}/")
    filesystems.forget_all()


def _names(address: Address) -> set[str]:
    below = len(address.key) + 1
    return {key[below:] for key in Listings().files(address)}


def test_an_unreadable_folder_is_an_error_and_costs_no_copies(
    address: Address, album: Path
) -> None:
    copy = fetched(address)
    (album / "deep").chmod(0)
    try:
        with pytest.raises(PermissionError, match="access denied") as caught:
            _names(address)
        with pytest.raises(DatasetError, match=r"album/deep: access denied"):
            fetched(address)
    finally:
        (album / "deep").chmod(0o755)
    assert caught.value.filename == str(address / "deep")
    assert "secret-word" not in str(caught.value)
    assert (copy / "deep/er/c.png").read_text() == "deep/er/c.png"


def test_a_connection_that_breaks_within_a_listing_loses_nothing(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paramiko

    broken: list[str] = []
    whole = paramiko.SFTPClient.listdir_iter

    def listdir(client: Any, path: str) -> Any:
        if path.endswith("/deep") and not broken:
            broken.append(path)
            client.get_channel().get_transport().close()
        return whole(client, path)

    monkeypatch.setattr(paramiko.SFTPClient, "listdir_iter", listdir)
    assert _names(address) == {"a.png", "deep/b.png", "deep/er/c.png"}
    assert broken


def test_links_to_files_are_files(address: Address, album: Path) -> None:
    (album / "link.png").symlink_to("deep/b.png")
    (album / "nowhere.png").symlink_to("none.png")
    (album / "loop").symlink_to(".")
    names = {"a.png", "deep/b.png", "deep/er/c.png", "link.png"}
    assert _names(address) == names
    assert (fetched(address) / "link.png").read_text() == "deep/b.png"


def test_a_file_alone_is_copied(address: Address, album: Path) -> None:
    first = fetched(address / "a.png")
    assert (first.name, first.read_text()) == ("a.png", "a.png")
    (album / "a.png").write_text("changed")
    assert fetched(address / "a.png").read_text() == "changed"


def test_names_may_have_any_characters(address: Address, album: Path) -> None:
    names = ("a?b=1.png", "a?b=2.png", "a#1.png", "a#2.png", "100%41.png")
    for name in names:
        with complete(address / name) as part:
            part.write_text(name)
    assert {name: (album / name).read_text() for name in names} == {n: n for n in names}
    assert [read_bytes(address / name).decode() for name in names] == list(names)
    assert set(names) < _names(address)
    assert (fetched(address) / "a?b=2.png").read_text() == "a?b=2.png"


def test_a_server_without_a_path_is_its_root() -> None:
    assert filesystems.path_of(Address.parse("sftp://host"), None) == "/"
    assert filesystems.path_of(Address.parse("sftp://host/a?b#c"), None) == "/a?b#c"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("az://photos/a?b#c.png", "photos/a?b#c.png"),
        ("az://photos", "photos"),
        ("abfs://photos@me.dfs.core.windows.net/a?b", "photos/a?b"),
        ("abfs://me.dfs.core.windows.net/photos/a", "photos/a"),
    ],
)
def test_names_of_azure_begin_with_the_container(text: str, path: str) -> None:
    assert filesystems.path_of(Address.parse(text), None) == path
