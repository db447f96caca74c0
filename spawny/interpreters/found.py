"""An interpreter on this machine, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """An interpreter that was found, and what it said of itself when it was executed.

    It may be given as `python_exe`. Of a broken one little more is known than its path and its
    `problem`.
    """

    path: str
    """The executable to start; a virtual environment's own, symbolic link or not."""
    version: tuple[int, ...] = ()
    """Such as (3, 9, 18); empty where it did not say."""
    version_text: str = ""
    """Such as 3.9.18 or 3.14.0rc1."""
    implementation: str = ""
    """Such as cpython or pypy."""
    prefix: str = ""
    """Its `sys.prefix`: the directory of a virtual environment, where it is one."""
    base_prefix: str = ""
    """Its `sys.base_prefix`."""
    environment: str = ""
    """The name of the virtual or conda environment; empty for a plain interpreter."""
    sources: tuple[str, ...] = ()
    """Where it was found, such as PATH, pyenv or conda; the first counts."""
    problem: str = ""
    """Why it cannot run a daemon; empty: it can."""
    remark: str = ""
    """What it lacks that a daemon can do without."""
    is_prerelease: bool = False
    is_free_threaded: bool = False

    def __fspath__(self) -> str:
        return self.path

    @property
    def can_run(self) -> bool:
        """Whether it can run a daemon."""
        return not self.problem
