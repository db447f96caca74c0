"""What a user may write as requirements, as lines that no longer depend on where they were written.

One rule: equal requirements are equal values. So files are read, what they include is put in their
place, local paths are absolute, and of what lies at a local path there is a digest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidRequest
from .indexes import masked

# So many of the lines are shown in a message.
SHOWN_LINES = 4

SCRIPT = "script"  # instead of a path: the header of the script itself

# Files of a project that change with every look at it, and change nothing of what is installed.
_UNREAD = frozenset({"__pycache__", "build", "dist", "node_modules"})

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(--?[A-Za-z][\w-]*)(?:\s*=\s*|\s+|$)(.*)")
_OPERATOR = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>|,)\s*")
_DIRECT = re.compile(r"(?P<name>[\w.-]+(\[[^\]]*\])?\s*@\s*)?(?P<target>\S+)(?P<rest>.*)")
_EXTRAS = re.compile(r"(?P<path>.*?)(?P<extras>\[[^\]]*\])?")
_ARCHIVE = re.compile(r"\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)(\[[^\]]*\])?\Z")
_SHORT = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
}

# pip and uv have others, which concern where and how they install: that is not the user's to say.
_PERMITTED = frozenset(
    {"--requirement", "--constraint", "--editable", "--find-links", "--index-url"}
    | {"--extra-index-url", "--no-index", "--no-binary", "--only-binary", "--prefer-binary"}
    | {"--pre", "--trusted-host", "--require-hashes", "--use-feature"}
)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What an environment is to have in it.

    `lines` and `constraints` are as in a requirements file, sorted, with absolute paths; of each
    local path in them `contents` has a digest. `requires_python` is a version specifier, or empty.
    """

    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    contents: tuple[tuple[str, str], ...] = ()
    requires_python: str = ""

    def __add__(self, other: Requirements) -> Requirements:
        """What is required by either."""
        pythons = dict.fromkeys(filter(None, (self.requires_python, other.requires_python)))
        return Requirements(
            _sorted(self.lines + other.lines),
            _sorted(self.constraints + other.constraints),
            tuple(sorted({*self.contents, *other.contents})),
            ",".join(pythons),
        )

    def digest(self) -> str:
        """The identity of these requirements: equal ones have equal digests."""
        fields = (self.lines, self.constraints, self.contents, self.requires_python)
        return hashlib.blake2b(repr(fields).encode(errors="surrogateescape")).hexdigest()

    def shown(self) -> list[str]:
        """The lines for people: without passwords."""
        return [masked(line) for line in self.lines]

    def summary(self) -> str:
        """A few words for people."""
        lines = self.shown()
        rest = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
        return ", ".join(lines[:SHOWN_LINES]) + rest or "no packages"


def read(wanted: object, cwd: str, script: str | None = None) -> Requirements | None:
    """What `requirements=` means; None for none.

    A list has lines as in a requirements file. A text is a file: `pyproject.toml` is read for its
    dependencies, `pyproject.toml[EXTRA,...]` for those of extras as well, `pyproject.toml:GROUP`
    for a dependency group alone; any other is a requirements file. `"script"` is the header of
    `script`. Raises `InvalidRequest` for what cannot be read.
    """
    if isinstance(wanted, Requirements):
        return wanted
    if wanted is None:
        return None
    if isinstance(wanted, (str, os.PathLike)):
        text = os.fspath(wanted)
        if not isinstance(text, str):
            raise InvalidRequest(f"requirements: a file's path is text, not {text!r}")
        return _read_header(script) if text == SCRIPT else _read_file(text, cwd)
    if isinstance(wanted, Sequence) and all(isinstance(line, str) for line in wanted):
        return _Reading(cwd).lines(wanted, cwd, "requirements") if wanted else None
    raise InvalidRequest(
        "requirements is a list of texts such as 'numpy<2', the path of a file, or 'script' for the"
        f" script's own header, not {wanted!r}"
    )


def from_lines(lines: Sequence[str], folder: str, source: str) -> Requirements:
    """The requirements of these lines of a file in this folder."""
    return _Reading(folder).lines(lines, folder, source)


def _read_header(script: str | None) -> Requirements:
    from . import script as scripts

    if script is None:
        raise InvalidRequest(
            f"requirements={SCRIPT!r} is for scripts, whose header it names; a file of that name is"
            f" './{SCRIPT}'"
        )
    found = scripts.header(script)
    if found is None:
        raise InvalidRequest(
            f"requirements={SCRIPT!r}, but the script has no header: it begins with the line"
            " '# /// script'"
        )
    return found


def _read_file(text: str, cwd: str) -> Requirements:
    from . import pyproject

    path, extras, group = pyproject.parts(text)
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(path)))
    if os.path.basename(path) == pyproject.NAME:
        return pyproject.read(path, extras, group)
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(text)))
    if not os.path.exists(path) and not text.endswith(".txt"):
        raise InvalidRequest(
            f"requirements: there is no file {path}; a requirement itself is written in a list:"
            f" [{text!r}]"
        )
    return _Reading(cwd).file(path)


class _Reading:
    """The files of one reading, so that none is read twice."""

    def __init__(self, cwd: str) -> None:
        self._cwd = cwd
        self._seen: set[str] = set()

    def file(self, path: str) -> Requirements:
        """What a requirements file says."""
        if path in self._seen:  # it includes itself
            return Requirements()
        self._seen.add(path)
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidRequest(f"requirements: cannot read {path}: {reason}") from error
        joined = text.replace("\\\n", " ")
        return self.lines(joined.splitlines(), os.path.dirname(path), path)

    def lines(self, lines: Sequence[str], folder: str, source: str) -> Requirements:
        """What these lines say, relative to a folder."""
        found = Requirements()
        for each in lines:
            line = _COMMENT.sub("", each).strip()
            if line:
                found += self._line(line, folder, source)
        return found

    def _line(self, line: str, folder: str, source: str) -> Requirements:
        if not line.startswith("-"):
            return self._package(line, folder)
        match = _OPTION.match(line)
        option = _SHORT.get(match[1], match[1]) if match else line
        if match is None or option not in _PERMITTED:
            raise InvalidRequest(f"{source}: {masked(line)!r} has no place among requirements")
        value = match[2].strip()
        if option in ("--requirement", "--constraint") and "://" not in value:
            included = self.file(self._path(value, folder))
            if option == "--requirement":
                return included
            return replace(
                included,
                lines=(),
                constraints=_sorted(included.lines + included.constraints),
            )
        if option == "--editable":
            package = self._package(value, folder)
            return replace(package, lines=tuple(f"-e {each}" for each in package.lines))
        if option == "--find-links" and "://" not in value:
            value = self._path(value, folder)
        return Requirements((f"{option} {value}".strip(),))

    def _package(self, line: str, folder: str) -> Requirements:
        match = _DIRECT.match(line)
        target = match["target"] if match else ""
        path = _local_path(target, named=bool(match and match["name"]))
        if match is None or path is None:
            text, semicolon, marker = line.partition(";")
            if "@" not in text:
                text = _OPERATOR.sub(r"\1", text)
            return Requirements((" ".join((text + semicolon + marker).split()),))
        parts = _EXTRAS.fullmatch(path)
        assert parts is not None  # it matches any text
        there = self._path(parts["path"], folder)
        extras = parts["extras"] or ""
        # As a URL where a name stands before it: nothing else is permitted there.
        written = f"{match['name'] or ''}{'file://' if match['name'] else ''}{there}{extras}"
        digest = content_digest(there)
        return Requirements((f"{written}{match['rest']}".strip(),), contents=((there, digest),))

    def _path(self, path: str, folder: str) -> str:
        """Relative to the file that says it; where nothing is there, to the directory, as pip."""
        expanded = os.path.expanduser(path)
        there = os.path.normpath(os.path.join(folder, expanded))
        here = os.path.normpath(os.path.join(self._cwd, expanded))
        return here if os.path.exists(here) and not os.path.exists(there) else there


def _local_path(target: str, *, named: bool) -> str | None:
    """The path in a requirement that is one; None for a name or a URL."""
    if target.startswith("file:"):
        path = target.removeprefix("file:")
        return path.removeprefix("//").removeprefix("localhost") if "//" in path[:2] else path
    if "://" in target:
        return None
    if named or target in (".", "..") or target.startswith((".", "/", "~")):
        return target
    return target if os.sep in target or _ARCHIVE.search(target) else None


def content_digest(path: str) -> str:
    """What tells whether a local file or project has changed; raises `InvalidRequest` for none.

    Of a file its bytes. Of a project's folder the names, sizes and times of its files, but for
    what is hidden or was built: to read all of it at each start would take too long.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        if os.path.isdir(path):
            for each in _files(path):
                found = os.lstat(each)
                stamp = f"{os.path.relpath(each, path)}\0{found.st_size}\0{found.st_mtime_ns}\0"
                digest.update(stamp.encode(errors="surrogateescape"))
        else:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    except OSError as error:
        raise InvalidRequest(f"requirements: cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def _files(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            each
            for each in folders
            if each not in _UNREAD and not each.startswith(".") and not each.endswith(".egg-info")
        )
        yield from (os.path.join(parent, each) for each in sorted(files) if each[0] != ".")


def _sorted(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(lines)))
