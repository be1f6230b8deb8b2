"""Addresses of remote files: parsed, joined like paths, and printed without credentials.

Data flow: text of the command line → `Address`, or `Path` for a local file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import urlsplit

from agsr.errors import RequestError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_SAME = {"gcs": "gs", "abfs": "az", "abfss": "az", "s3a": "s3", "ssh": "sftp"}
"""Other names of schemes."""

WEB = ("https", "http")
"""Schemes that are only read, one file at a time."""

SCHEMES = ("s3", "gs", "az", "sftp", *WEB)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, repr=False, slots=True)
class Address:
    """Address of a remote file or folder, with the name operations of `pathlib.PurePath`.

    ``str()`` omits passwords, keys and queries, which may be signatures; `url` has them.

    >>> address = Address.parse("s3://photos/2026/a.jpg")
    >>> address.name, address.suffix, str(address.parent / "b.png")
    ('a.jpg', '.jpg', 's3://photos/2026/b.png')
    >>> str(Address.parse("sftp://me:secret@host/a.jpg"))
    'sftp://me@host/a.jpg'
    >>> str(Address.parse("s3://KEY:SECRET@photos/a.jpg"))
    's3://***@photos/a.jpg'
    """

    scheme: str
    """One of `SCHEMES`."""
    host: str
    """Bucket, container or server, with user, password and port if given."""
    key: str
    """Path within the bucket or on the server, without slashes around it."""
    query: str = ""
    """Query of a web address, with its question mark."""
    is_folder: bool = field(default=False, compare=False)
    """Whether the text ended in a slash."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address.

        Raises:
            RequestError: The scheme is unknown, or the bucket or server is missing.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise RequestError(f"{text}: not an address; expected one like s3://bucket/name")
        scheme, rest = match[1].lower(), match[2]
        scheme = _SAME.get(scheme, scheme)
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES[:-1])
            raise RequestError(f"{scheme}://…: unknown scheme; expected {known} or a path")
        query = ""
        if scheme in WEB:
            rest, mark, query = rest.partition("#")[0].partition("?")
            query = mark + query
        host, _, key = rest.partition("/")
        address = cls(scheme, host, key.strip("/"), query, not key or key.endswith("/"))
        if not host:
            raise RequestError(f"{scheme}://: the bucket or server is missing")
        if scheme == "http" and urlsplit(address.url).hostname not in _LOOPBACK:
            raise RequestError(f"{address}: http is not encrypted; use https://")
        return address

    @property
    def url(self) -> str:
        """The whole address, with credentials."""
        return f"{self.scheme}://{self.host}" + (f"/{self.key}" if self.key else "") + self.query

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Ending of the name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        """The folder; a bucket is its own parent."""
        return Address(self.scheme, self.host, self.key.rpartition("/")[0], is_folder=True)

    @property
    def parents(self) -> tuple[Address, ...]:
        """The folder, its folder, and so on to the bucket."""
        found, below = list[Address](), self
        while below.key:
            below = below.parent
            found.append(below)
        return tuple(found)

    @property
    def is_writable(self) -> bool:
        """Whether files of this scheme can be written."""
        return self.scheme not in WEB

    def joinpath(self, *parts: str | PurePath) -> Address:
        """Return the address of a file below."""
        names = [PurePath(part).as_posix() for part in parts]
        key = "/".join(filter(None, (self.key, *(n for n in names if n != "."))))
        return Address(self.scheme, self.host, key)

    def __truediv__(self, other: str | PurePath) -> Address:
        return self.joinpath(other)

    def __str__(self) -> str:
        user, at, server = self.host.rpartition("@")
        if at:  # the user of SFTP and Azure's container are no secret
            user = user.partition(":")[0] if self.scheme in ("sftp", "az") else "***"
        return f"{self.scheme}://{user}{at}{server}" + (f"/{self.key}" if self.key else "")

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


Location = Path | Address
"""A local path or an address."""


def to_location(text: str | Path) -> Location:
    """Return the address that a text is, or a local path.

    >>> to_location("s3://photos/a.jpg"), to_location("photos").name
    (Address('s3://photos/a.jpg'), 'photos')

    Raises:
        RequestError: It looks like an address, and is none.
    """
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return Path(text)
    if match[1].lower() == "file":
        return Path(match[2])
    return Address.parse(str(text))
