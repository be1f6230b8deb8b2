"""The final path of a result, and the attributes it inherits from the file that it replaces.

Links are followed, so a link stays a link. The new file gets the mode, owner, group, access list
and user attributes of the old one. `agsr.system.atomic_file` writes the file.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agsr.system.text import listed

_ACCESS_LIST = "system.posix_acl_access"
_USER = "user."
_MAX_LINKS = 40
"""Linux's limit for following links."""

_log = logging.getLogger(__name__)


def final_path(path: Path) -> Path:
    """Return the file that a path refers to after following links; it may not exist yet.

    Raises:
        OSError: The links form a loop, the last one points into a folder that does not exist, or
            one is untrusted; see `check_links`.
    """
    if not path.is_symlink():
        return path
    check_links(path)
    final = Path(os.path.realpath(path))  # noqa: PTH118, RUF100  # returns a link for a loop
    if final.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"Link to a missing folder: {final}", str(path))
    return final


def check_links(path: Path) -> None:
    """Reject links that another user may have planted, like Linux's `protected_symlinks`.

    In a sticky, world-writable folder like ``/tmp``, a link is trusted only if it belongs to this
    user or to the folder's owner. Linux applies its rule when a file is opened, which doesn't cover
    replacing the file that a link points to.

    Raises:
        PermissionError: A link at the end of the path is untrusted.
    """
    if sys.platform == "win32":
        return
    for _ in range(_MAX_LINKS):
        if not path.is_symlink():
            return
        if not _may_follow(path.lstat(), path.parent.stat(), os.geteuid()):
            reason = "a link of another user in a world-writable folder; remove it"
            raise PermissionError(errno.EACCES, reason, str(path))
        path = path.parent / path.readlink()


def _may_follow(link: os.stat_result, folder: os.stat_result, user: int) -> bool:
    planted = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    return not planted or link.st_uid in (user, folder.st_uid)


@dataclass(frozen=True)
class Replaced:
    """A regular file that will be replaced."""

    path: Path
    """Path of the file, not a link."""
    state: os.stat_result
    """Its status."""

    @classmethod
    def at(cls, path: Path) -> Replaced | None:
        """Return the regular file at a path; None if there is none.

        Raises:
            PermissionError: The file is write-protected.
        """
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(state.st_mode):
            return None
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return cls(path, state)

    def transfer_to(self, new: Path) -> None:
        """Copy the attributes to a new file; log a warning for those that are not permitted."""
        lost = []
        if sys.platform != "win32":
            lost = _copy_owner(self.state, new)
        if sys.platform == "linux":
            lost += _copy_attributes(self.path, new)
        if not _permitted(new.chmod, stat.S_IMODE(self.state.st_mode) & 0o777):
            lost.append("mode")  # some network drives have no modes
        if lost:
            _log.warning("%s: replaced, but its %s can't be restored", self.path, listed(lost))
        if self.state.st_nlink > 1:
            others = self.state.st_nlink - 1
            _log.info(
                "%s: replaced; %d other hard links still have the old content", self.path, others
            )


def _permitted(call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except OSError:
        return False
    return True


if sys.platform != "win32":

    def _copy_owner(old: os.stat_result, new: Path) -> list[str]:
        """Set owner and group; return those that the system rejects."""
        now, lost = new.stat(), list[str]()
        if old.st_gid != now.st_gid and not _permitted(os.chown, new, -1, old.st_gid):
            lost.append("group")
        if old.st_uid != now.st_uid and not _permitted(os.chown, new, old.st_uid, -1):
            lost.append("owner")
        return lost


if sys.platform == "linux":

    def _copy_attributes(old: Path, new: Path) -> list[str]:
        """Copy the access list and user attributes; return those that the system rejects."""
        names, lost = list[str](), list[str]()
        with suppress(OSError):  # the file system has no attributes
            names = os.listxattr(old)
        for name in names:
            if name != _ACCESS_LIST and not name.startswith(_USER):
                continue  # the system sets the others itself
            if not _permitted(_copy_attribute, old, new, name):
                lost.append("access list" if name == _ACCESS_LIST else name)
        return lost

    def _copy_attribute(old: Path, new: Path, name: str) -> None:
        os.setxattr(new, name, os.getxattr(old, name))
