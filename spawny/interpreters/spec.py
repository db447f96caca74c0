"""What a user may write for an interpreter's version: `3.9`, `pypy3.9`, `>=3.8,<3.12`.

Pure: nothing is looked up here. Paths, aliases and names of environments are no versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# 3.9, 3.9.18, python3.9, cpython-3.9, pypy, pypy3.9, python>=3.8; what follows the name is either.
_WHOLE = re.compile(r"(?P<name>python|cpython|pypy|graalpy)?[-@ ]?(?P<rest>[^A-Za-z/]*)\Z")
_VERSION = re.compile(r"\d+(\.\d+){0,2}(\.\*)?\Z")
_CLAUSE = re.compile(r"(?P<operator>>=|<=|==|!=|~=|>|<)\s*(?P<version>\d+(\.\d+){0,2}(\.\*)?)\Z")

# Names that a shell would look up: unlike 3.9 or pypy>=3.8.
_EXECUTABLE = re.compile(r"(python|pypy|graalpy)(?P<version>\d+(\.\d+)?)?t?\Z")


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition on a version. `==` and `!=` mean all versions that begin so."""

    operator: str
    version: tuple[int, ...]

    def allows(self, version: tuple[int, ...]) -> bool:
        """Whether a version, of three numbers, satisfies it."""
        begin = version[: len(self.version)]
        whole = self.version + (0,) * (len(version) - len(self.version))
        match self.operator:
            case "==":
                return begin == self.version
            case "!=":
                return begin != self.version
            case ">=":
                return version >= whole
            case "<":
                return version < whole
            case ">":  # 3.8.18 is >3.8 and not <=3.8, as with packages' requirements
                return version > whole
            case "<=":
                return version <= whole
        # ~=3.8 is >=3.8, ==3.*
        return version >= whole and version[: len(self.version) - 1] == self.version[:-1]

    def may_allow(self, begin: tuple[int, ...]) -> bool:
        """Whether any version that begins so may satisfy it."""
        if len(begin) < 2:
            return True
        return any(self.allows((*begin[:2], patch)) for patch in (0, 99, *self.version[2:]))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version of an implementation; None for an implementation: any, CPython first."""

    implementation: str | None
    clauses: tuple[Clause, ...]

    def allows(self, implementation: str, version: tuple[int, ...]) -> bool:
        """Whether an interpreter that says this of itself is wanted."""
        if self.implementation not in (None, implementation):
            return False
        return all(clause.allows(version) for clause in self.clauses)

    def may_be(self, name: str) -> bool:
        """Whether an executable of this name, such as python3.9, may be wanted."""
        match = _EXECUTABLE.match(name)
        if match is None or match["version"] is None:
            return True
        begin = _numbers(match["version"])
        return all(clause.may_allow(begin) for clause in self.clauses)


def parse(text: str) -> Wanted | None:
    """The version that is meant; None where this is no version."""
    match = _WHOLE.match(text.strip())
    if match is None or not text.strip():
        return None
    clauses = _clauses(match["rest"].strip())
    if clauses is None or (match["name"] is None and not clauses):
        return None
    return Wanted(_implementation(match["name"], clauses), clauses)


def is_executable_name(name: str) -> bool:
    """Whether interpreters' files are called so: python, python3.9, pypy3, python3.13t."""
    return _EXECUTABLE.match(name) is not None


def _implementation(name: str | None, clauses: tuple[Clause, ...]) -> str | None:
    if name == "python":
        return "cpython" if clauses else None
    # As ever, a plain 3.9 is CPython's; a range is met by PyPy where there is nothing else.
    is_plain = len(clauses) == 1 and clauses[0].operator == "=="
    return "cpython" if name is None and is_plain else name


def _clauses(text: str) -> tuple[Clause, ...] | None:
    """The conditions of `3.9` or `>=3.8,<3.12`; None for anything else."""
    if not text:
        return ()
    if _VERSION.match(text):
        return (Clause("==", _numbers(text.removesuffix(".*"))),)
    found = []
    for part in text.split(","):
        match = _CLAUSE.match(part.strip())
        if match is None:
            return None
        version, has_star = match["version"].removesuffix(".*"), match["version"].endswith(".*")
        operator = match["operator"]
        if (has_star and operator not in ("==", "!=")) or (operator == "~=" and "." not in version):
            return None
        found.append(Clause(operator, _numbers(version)))
    return tuple(found)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
