"""Groups of commands: how errors become one line and an exit status."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from agsr.errors import AgsrError, RequestError, UnfetchedSetError
from agsr.system.process_settings import command_process
from agsr.system.signals import INTERRUPTED, TERMINATED, Terminated, terminable
from agsr.system.text import printable

STDOUT = "stdout"
"""Its name in messages."""

_OF_STREAMS = (errno.EPIPE, errno.ENOSPC)
"""Errors of writing; those of a file name it (`agsr.system.atomic_file`)."""

_ARGUMENTS = "agsr.arguments"
"""Key of what was typed, in the context's `click.Context.meta`."""


def _with_hint(error: click.UsageError, arguments: Sequence[str]) -> str:
    """The message, with the names that may have been meant, the closest first."""
    message = error.format_message()
    meant = getattr(error, "possibilities", None)
    typed = getattr(error, "option_name", None) or getattr(error, "command_name", None)
    if meant and typed:
        names = ", ".join(map(repr, get_close_matches(typed, meant) or meant))
        message = f"{error.message} Did you mean {names}?"
    if isinstance(error, click.NoSuchOption | click.BadParameter | click.BadOptionUsage):
        end = arguments.index("--") if "--" in arguments else len(arguments)
        for word in arguments[:end]:
            if word.startswith("-") and Path(word).is_file():
                return f"{message} A file name that begins with '-' goes behind '--': -- {word}"
    return message


class Commands(click.Group):
    """Turns the project's errors into one line and an exit status.

    2 if the request is wrong, like an unknown name; 1 if it is understood and something fails, as a
    file that is missing; 130 and 143 for signals.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the help: what most people need first."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note what was typed, for messages; otherwise as click does."""
        ctx.meta.setdefault(_ARGUMENTS, list(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors a user can act on become a `click.ClickException`."""
        try:
            with command_process(), terminable():
                return super().invoke(ctx)
        except click.UsageError as error:
            message = _with_hint(error, ctx.meta.get(_ARGUMENTS, []))
            lines = [printable(line) for line in message.expandtabs(2).split("\n")]
            if "\n".join(lines) == error.format_message().expandtabs(2):
                raise
            raise click.UsageError("\n".join(lines), error.ctx) from None
        except UnfetchedSetError as error:
            typed = shlex.join(["agsr", *ctx.meta.get(_ARGUMENTS, []), "--fetch"])
            raise click.UsageError(printable(f"{error}. Type: {typed}")) from None
        except RequestError as error:
            raise click.UsageError(printable(str(error))) from None
        except AgsrError as error:
            raise click.ClickException(printable(str(error))) from None
        except OSError as error:
            reason = error.strerror or str(error)
            name = error.filename or (STDOUT if error.errno in _OF_STREAMS else None)
            named = f"{name}: " if name else ""
            raise click.ClickException(printable(f"{named}{reason}")) from None
        except MemoryError:
            raise click.ClickException("out of memory") from None
        except Terminated:
            click.echo("terminated", err=True)
            raise SystemExit(TERMINATED) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


class LazyCommands(Commands):
    """Imports a command's module when the command is looked up.

    Args:
        modules: Module of each command by the command's name, in the order of the help.
        options: Those of `click.Group`.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name."""
        if cmd_name not in self.commands and cmd_name in self._modules:
            for found in vars(import_module(self._modules[cmd_name])).values():
                if isinstance(found, click.Command) and found.name == cmd_name:
                    self.add_command(found)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; the error for an unknown one knows all names."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if hasattr(error, "possibilities"):  # click computed them from what is imported
                error.possibilities = get_close_matches(args[0], self._modules)
            raise
