"""Interpreters that are broken in every way."""

import json
import os
import re
import sys
import venv
from pathlib import Path

from spawny.interpreters.prober import BEGIN, END


class Zoo:
    """A directory of executables, each of its own kind.

    The hanging ones write their pid, and that of a child, a line each, to `pids`, which is a FIFO.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pids = root / "pids"
        os.mkfifo(self.pids)

    def file(self, name: str, text: str, mode: int = 0o755) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def script(self, name: str, *lines: str) -> str:
        """An executable that runs these lines of shell."""
        return self.file(name, "\n".join(["#!/bin/sh", *lines, ""]))

    def saying(self, name: str, text: str, **changes: object) -> str:
        """One that says this of itself; each time, it adds a line to `asked`."""
        path = str(self.root / name)
        numbers = [int(part) for part in re.findall(r"\d+", text)[:3]]
        said = {
            "version": numbers,
            "version_text": text,
            "level": "final",
            "implementation": "cpython",
            "executable": path,
            "prefix": str(Path(path).parents[1]),
            "base_prefix": str(Path(path).parents[1]),
            "abiflags": "",
            "problem": "",
            "no_ssl": "",
            **changes,
        }
        answer = f"{BEGIN}{json.dumps(said)}{END}"
        return self.script(name, f"echo {name} >> {self.root}/asked", f"echo '{answer}'")

    def asked(self) -> list[str]:
        """Which of those that say something were executed since the last time."""
        log = self.root / "asked"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    def hanging(self, name: str = "hangs") -> str:
        """One that never answers, and ignores being asked to end, with a child of its own."""
        return self.script(
            name,
            "trap '' TERM INT HUP",
            "/bin/sleep 1000 &",
            f'echo "$$ $!" > {self.pids}',
            "while true; do wait; done",
        )

    def hanging_pids(self) -> list[int]:
        """Of one that hangs by now, and of its child."""
        with open(self.pids) as pids:
            return list(map(int, pids.readline().split()))

    def rubbish(self, name: str = "rubbish", python: str = sys.executable) -> str:
        """A good one that prints what nobody asked for."""
        return self.script(
            name,
            "printf 'welcome \\377 {\"version\": 1}\\n'; echo warning >&2",
            f'"{python}" "$@"',
            "echo good bye",
        )

    def without_ssl(self, name: str = "no-ssl", python: str = sys.executable) -> str:
        """As one that was built where OpenSSL was missing."""
        self.file("shadow/ssl.py", "raise ImportError('No module named _ssl')\n")
        return self.script(name, f'PYTHONPATH={self.root}/shadow exec "{python}" "$@"')

    def venv(self, name: str, python: str = sys.executable) -> str:
        """The interpreter of a virtual environment."""
        folder = self.root / name
        venv.EnvBuilder(symlinks=True).create(folder)
        return str(folder / "bin" / "python")

    def baseless(self, name: str = "baseless") -> str:
        """The interpreter of a virtual environment whose base was uninstalled."""
        path = Path(self.venv(name))
        path.unlink()
        path.symlink_to("/nowhere/bin/python3.9")
        return str(path)
