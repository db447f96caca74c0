"""`spawny python`: a program in a warm daemon, with the terminal of this command."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import DaemonExists, DaemonNotFound, InvalidRequest
from . import env, show
from .exits import OK

if TYPE_CHECKING:
    from ..client.programs import Terminal
    from ..client.proxy import ObjectProxy

_DESCRIPTION = """\
Run a program as python would, in a daemon that has its imports loaded: with this
terminal, directory and arguments, and the exit code of the program as ours. Each run
has a fresh __main__, in which the daemon's root object is `root`; what was imported
stays, but for modules of the program's own folder.
"""

# What the daemon of a name that does not run yet is started from.
_EMPTY = "# a warm interpreter\n"


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "python",
        help="run a program in a warm daemon, as python would",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="spawny python [--name NAME] [--python SPEC] [--with REQ] [--with-requirements FILE]"
        " [--preload MODULE]"
        " [-c CODE | -m MODULE | SCRIPT | -] [ARGUMENT ...]",
    )
    parser.add_argument(
        "--name",
        help="the daemon; started, and left running, where there is none of that name"
        " (default: one of its own, which ends with the program)",
    )
    parser.add_argument(
        "--python",
        metavar="SPEC",
        help="the interpreter of a new daemon, as for spawny run; that of one that runs must match",
    )
    parser.add_argument(
        "--with",
        dest="packages",
        metavar="REQ",
        action="append",
        default=[],
        help="a package that it requires, such as numpy or 'numpy<2'; may be repeated",
    )
    env.add_files_option(parser)
    parser.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this in a new daemon at once; may be repeated",
    )
    parser.add_argument("-c", dest="code", nargs=argparse.REMAINDER, help="a program as text")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, help="a module to run as a program"
    )
    parser.add_argument(
        "program",
        metavar="SCRIPT",
        nargs=argparse.REMAINDER,
        help="a file; without any program, or as -, standard input, which is a prompt where it is"
        " a terminal",
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Run it; its exit code."""
    from ..client.programs import Terminal

    kind, text, argv, folder = _program(options)
    with show.warnings_as_messages():
        root = _daemon(options)
    with Terminal(root) as terminal:
        if kind == "block":
            return _prompt(terminal)
        return terminal.run(kind, text, argv, folder) or OK


def _program(options: argparse.Namespace) -> tuple[str, str | bytes, list[str], str]:
    """(kind, text, argv, folder) as the daemon takes them, see kernel/programs.py."""
    for option, given in (("-c", options.code), ("-m", options.module)):
        if given == []:
            raise InvalidRequest(f"{option} needs an argument")
    if options.code:
        return "code", options.code[0], ["-c", *options.code[1:]], ""
    if options.module:
        return "module", options.module[0], ["-m", *options.module[1:]], os.getcwd()
    name, *arguments = options.program or ["-"]
    if name != "-":
        try:
            open(name, "rb").close()
        except IsADirectoryError:
            return "file", name, [name, *arguments], os.path.abspath(name)
        except OSError as error:
            raise InvalidRequest(f"can't open file {name!r}: {error.strerror}") from error
        # As python has it: the folder of the file itself, not that of a link to it.
        return "file", name, [name, *arguments], os.path.dirname(os.path.realpath(name))
    if sys.stdin is not None and sys.stdin.isatty():
        return "block", "", [""], ""
    argv = ["-", *arguments] if options.program else [""]
    return "input", sys.stdin.buffer.read() if sys.stdin else "", argv, ""


def _daemon(options: argparse.Namespace) -> ObjectProxy:
    """The root of the daemon of that name, or of a new one."""
    from ..client import launch
    from ..client.proxy import reference_of

    wanted: Any = env.required(options.packages, options.with_requirements)
    if options.name is not None:
        with contextlib.suppress(DaemonNotFound):
            root = launch.attach(options.name)
            found = reference_of(root).session.started
            python = launch.absolute_python(options.python)
            differences = launch.other_interpreter(found, python, wanted)
            if differences:
                raise DaemonExists(
                    f"daemon {options.name!r} differs: {'; '.join(differences)}. Use another name,"
                    " or leave out what it is to have"
                )
            return root
    logger = logging.getLogger(__name__)  # its progress is not for a terminal
    env.show_progress(logger)
    return launch.run_script(
        _EMPTY,
        options.python,
        logger,
        name=options.name,
        preload=options.preload,
        requirements=wanted,
    )


def _prompt(terminal: Terminal) -> int:
    """Blocks that are typed here and executed there, until one exits, or Ctrl-D."""
    import code

    class Console(code.InteractiveConsole):
        def runsource(self, source: str, filename: str = "", symbol: str = "single") -> bool:
            # What this Python takes for an error, that one may know; or it shows it.
            with contextlib.suppress(OverflowError, SyntaxError, ValueError):
                if self.compile(source, filename, symbol) is None:
                    return True
            exit_code = terminal.run("block", source, [""], "")
            if exit_code is not None:
                raise _Exited(exit_code)
            return False

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (editing, and the lines before)
    started = terminal.session.started
    version = ".".join(map(str, started["version"]))
    banner = (
        f"Python {version} ({started['implementation']}) in daemon {started['name']!r}, pid"
        f" {started['pid']}; its root object is `root`"
    )
    try:
        Console().interact(banner, exitmsg="")
    except _Exited as exited:
        return exited.code
    return OK


class _Exited(Exception):
    def __init__(self, code: int) -> None:
        self.code = code
