"""Messages of the engines for clients: without paths, and with options as requests name them.

The engines advise people at a command line: ``use PNG, or --max-size 65500``. A client can type
``max_size=65500``, but neither ``--max-pixels`` nor ``pip install``; such advice is removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from agsr.serve.parameters import NAMES
from agsr.system.text import printable

_FOLDERS = re.compile(r"(?<![\w./])(?:[A-Za-z]:)?[\\/](?:[^\s:;,'\"\\/]+[\\/])+")
"""The folders of an absolute path."""

_OPTION = re.compile(r"--([a-z][a-z-]*[a-z])(?:[ =](\d[\w.]*|[a-z]\w*\d))?(?![\w-])")
"""An option of the command line, and its value if that has a digit."""

_SHORT = {"-w": "weights"}
_COMMAND = re.compile(r"\bagsr [a-z]+ |\bpip install\b|(?<!\S)-[a-z]\b")
"""A command of a shell, or an option of one letter."""


def for_clients(message: str, names: Mapping[str, str]) -> str:
    """Return a message as a client may see it.

    >>> for_clients("/tmp/x/in.png: cut; see /etc/agsr/a.onnx", {"/tmp/x/in.png": "cat.png"})
    'cat.png: cut; see a.onnx'
    >>> for_clients("9x9 is 81 pixels, more than 4; if you trust the file: --max-pixels 81", {})
    '9x9 is 81 pixels, more than 4'
    >>> for_clients("out of memory; use a smaller result (--max-size)", {})
    'out of memory; use a smaller result (max_size)'

    Args:
        message: Of an error or a warning.
        names: What to show instead of each path.
    """
    return with_options_of_requests(without_paths(message, names))


def without_paths(message: str, names: Mapping[str, str]) -> str:
    """Replace known paths by their names, and remove the folders of any others.

    Args:
        message: Of an error or a warning.
        names: What to show instead of each path.
    """
    for path, name in sorted(names.items(), key=lambda item: -len(item[0])):
        message = message.replace(path, name)
    return printable(_FOLDERS.sub("", message).replace(os.sep + os.sep, ""))


def with_options_of_requests(message: str) -> str:
    """Rename the options that requests have, and remove advice that needs any other.

    >>> with_options_of_requests("too wide; use PNG, or --max-size 65500")
    'too wide; use PNG, or max_size=65500'
    >>> with_options_of_requests("no memory; use a smaller --tile")
    'no memory'
    """
    first, *others = message.replace(". Install it with", "; Install it with").split("; ")
    kept = [_renamed(first), *(_renamed(clause) for clause in others if _can_be_followed(clause))]
    return "; ".join(kept)


def _can_be_followed(advice: str) -> bool:
    named = (match[1].replace("-", "_") for match in _OPTION.finditer(advice))
    rest = advice
    for short, name in _SHORT.items():
        rest = rest.replace(f"{short} ", f"{name}=")
    return all(name in NAMES for name in named) and not _COMMAND.search(rest)


def _renamed(clause: str) -> str:
    for short, name in _SHORT.items():
        clause = re.sub(rf"(?<!\S){short} ", f"{name}=", clause)

    def as_in_a_query(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        if name not in NAMES:
            return match[0]
        return name if match[2] is None else f"{name}={match[2]}"

    return _OPTION.sub(as_in_a_query, clause)
