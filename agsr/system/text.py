"""Text of messages: errors in words, counts with their noun, and untrusted text escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from json import JSONDecodeError

_JOINERS = "\u200c\u200d"
"""Zero-width joiners, used between letters of some scripts and inside emoji."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its type if the message is empty.

    Some libraries add pages of explanation or a stack trace.

    >>> first_line(ValueError("bad shape\\nStack: ..."))
    'bad shape'
    >>> first_line(KeyboardInterrupt())
    'KeyboardInterrupt'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def in_words(error: BaseException) -> str:
    """Describe an error from reading a record, without the names of Python's types.

    >>> in_words(KeyError("limits"))
    "lacks 'limits'"
    """
    if isinstance(error, KeyError):
        return f"lacks {error.args[0]!r}" if error.args else "lacks an entry"
    if isinstance(error, JSONDecodeError):
        return f"not JSON: {error.msg} in line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "not text"
    return first_line(error)


def counted(number: int, noun: str) -> str:
    """Format a number with its noun.

    >>> counted(1, "byte"), counted(2, "byte")
    ('1 byte', '2 bytes')
    """
    return f"{number} {noun}" + "s" * (number != 1)


def counted_are(number: int, noun: str) -> str:
    """Format a number with its noun and the verb that agrees with it.

    >>> counted_are(1, "tag"), counted_are(2, "tag")
    ('1 tag is', '2 tags are')
    """
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def listed(names: Sequence[str], word: str = "and") -> str:
    """Join names as words.

    >>> listed(["a", "b", "c"]), listed(["a", "b"], "or"), listed(["a"])
    ('a, b and c', 'a or b', 'a')
    """
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def printable(text: str) -> str:
    r"""Escape control characters and line breaks so that the text prints safely on one line.

    File names may contain anything, and messages repeat them.

    >>> printable("photo\x1b[2J.png")
    'photo\\x1b[2J.png'
    """
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in text)


def without_controls(text: str) -> str:
    r"""Escape control characters and line breaks only, for programs that read one name per line.

    >>> without_controls("two\nlines, caf\u00e9")
    'two\\nlines, café'
    """
    return "".join(ascii(c)[1:-1] if _is_control(c) else c for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the nearest known name, and a space; empty if none is near.

    >>> did_you_mean("gna", ["psnr", "gan"]), did_you_mean("photograph", ["psnr"])
    ("did you mean 'gan'? ", '')
    """
    from difflib import get_close_matches  # only for errors

    close = get_close_matches(name, [*known], n=1)
    return f"did you mean '{close[0]}'? " if close else ""


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Zl", "Zp")


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in _JOINERS
