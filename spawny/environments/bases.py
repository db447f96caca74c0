"""The interpreter that an environment is made with: never that of another environment.

Environments of environments break in old Pythons, and would end with the one below them.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..interpreters import Found, spec


@dataclass(frozen=True, slots=True)
class Base:
    """An interpreter, by its real path; `version_text` is such as `3.9.18`."""

    executable: str
    implementation: str
    version: tuple[int, ...]
    version_text: str

    @property
    def label(self) -> str:
        """As people say it: `3.9.18`, `pypy 3.9.16`."""
        is_usual = self.implementation == "cpython"
        return self.version_text if is_usual else f"{self.implementation} {self.version_text}"

    def digest(self) -> str:
        """Its identity: of another version at the same path it is another one."""
        # A home may be shared by machines of several kinds.
        fields = (self, sysconfig.get_platform())
        return hashlib.blake2b(repr(fields).encode(errors="surrogateescape")).hexdigest()

    def satisfies(self, requires_python: str) -> bool:
        """Whether its version is one that a specifier such as `>=3.8,<3.12` allows."""
        if not requires_python:
            return True
        wanted = spec.parse(requires_python)
        if wanted is None:
            raise InvalidRequest(f"requires-python: {requires_python!r} is no version specifier")
        return wanted.allows(self.implementation, self.version)


def base_of(found: Found) -> Base:
    """The interpreter that this one, which may be of an environment, was made with."""
    name = "pypy" if found.implementation == "pypy" else "python"
    version = ".".join(map(str, found.version[:2]))
    paths = [os.path.join(found.base_prefix, "bin", name + each) for each in (version, "3", "")]
    path = next(filter(os.path.exists, paths), found.path)
    executable = os.path.realpath(path)
    return Base(executable, found.implementation, found.version, found.version_text)
