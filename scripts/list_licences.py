"""Write docs/licences.md: the packages that the wheel and its extras install, with their licences.

python scripts/list_licences.py    # in an environment with agsr[dev]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNLISTED = ("dev", "gpu", "pycuda")
"""Extras that are not listed: tools of developers, and those that need an NVIDIA GPU."""

FIRST = ("cpu", "serve", "video")
"""The extras that most installations have; a package that several extras need is theirs."""

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"

_HEAD = """\
# Licences of what agsr needs

agsr's code is under Apache-2.0; its weights have [a licence of their own](../agsr/weights/LICENSE).
This table lists the packages that `pip install agsr` and each extra install, directly or for
another package, with the licence that their metadata declares, and one extra that needs them.
Installations for NVIDIA GPUs add libraries under NVIDIA's licence. The table is written by
`python scripts/list_licences.py`, and a test compares it with the installed packages.

| package | licence | installed by |
|---|---|---|
"""
_WORDING = re.compile(r"^License :: (?:OSI Approved(?: :: )?)?")
_LONGEST = 60


def main() -> None:
    """Write the page."""
    PAGE.write_text(_HEAD + "".join(f"{row}\n" for row in rows()), encoding="utf-8")


def rows() -> list[str]:
    """Return a line of the table for each installed package, by name."""
    needed: dict[str, str] = {}
    for extra in ("", *FIRST, *sorted(_extras() - {*FIRST, *UNLISTED})):
        for name in _closure("agsr", extra):
            needed.setdefault(name, f"agsr[{extra}]" if extra else "agsr")
    del needed["agsr"]
    return [
        f"| {name} | {licence(distribution(name))} | `{by}` |"
        for name, by in sorted(needed.items())
    ]


def _project() -> dict[str, Any]:
    """Return the project table of the checkout, which may be newer than what is installed."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project: dict[str, Any] = table["project"]
    return project


def _extras() -> set[str]:
    return set(_project()["optional-dependencies"])


def _closure(name: str, extra: str) -> set[str]:
    """Return the installed packages that an extra needs, with the package itself."""
    found: set[str] = set()
    waiting = [(name, extra)]
    while waiting:
        package, chosen = waiting.pop()
        found.add(package)
        for requirement in _requirements(package, chosen):
            needed = canonicalize_name(requirement.name)
            if _is_installed(needed) and needed not in found:
                waiting += [(needed, e) for e in ("", *requirement.extras)]
    return found


def _requirements(name: str, extra: str) -> Iterator[Requirement]:
    if name == "agsr":
        extras = {"": _project()["dependencies"], **_project()["optional-dependencies"]}
        yield from map(Requirement, extras[extra])
        return
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def licence(package: Distribution) -> str:
    """Return the licence that a package's metadata declares.

    Raises:
        ValueError: It declares none.
    """
    metadata = package.metadata
    classifiers = metadata.get_all("Classifier") or []
    expression = metadata.get("License-Expression")
    text = metadata.get("License")
    for found in ([expression], _of_classifiers(classifiers), [text]):
        known = [entry for entry in found if entry and entry != "UNKNOWN"]
        if known:
            return "; ".join(known).splitlines()[0][:_LONGEST].replace("|", "/")
    raise ValueError(f"{metadata['Name']} declares no licence")


def _of_classifiers(classifiers: Iterable[str]) -> list[str]:
    names = (_WORDING.sub("", c) for c in classifiers if c.startswith("License ::"))
    return [name for name in names if name]


if __name__ == "__main__":
    main()
