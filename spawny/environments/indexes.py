"""Where packages come from: what pip and uv were told, by variables and files.

One rule: both are told the same. Whoever set an index for pip does not want another one asked only
because uv happens to be there: a package of that name from elsewhere is another package.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_SECRET = re.compile(r"(://)[^/@\s]+@")

# Of pip, and what uv calls it: the names that it knows, the newest first.
_SAME = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_NO_INDEX": ("UV_NO_INDEX",),
    "PIP_CONSTRAINT": ("UV_CONSTRAINT",),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST",),
}

# What else changes which packages are installed; each tool knows its own.
_OWN = (
    *("PIP_PRE", "PIP_ONLY_BINARY", "PIP_NO_BINARY", "PIP_PREFER_BINARY", "PIP_REQUIRE_HASHES"),
    *("UV_PRERELEASE", "UV_RESOLUTION", "UV_EXCLUDE_NEWER", "UV_INDEX_STRATEGY", "UV_OVERRIDE"),
    *("UV_NO_BINARY", "UV_NO_BUILD", "UV_TORCH_BACKEND"),
)

# Where they would install to, or with what: that is decided here.
_DROPPED = (
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_REQUIREMENT"),
    *("PIP_REQUIRE_VIRTUALENV", "PIP_DRY_RUN", "PIP_NO_DEPS", "PIP_EDITABLE", "PIP_REPORT"),
    *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_PROJECT", "UV_NO_DEPS"),
    *("UV_PROJECT_ENVIRONMENT", "UV_VENV_CLEAR", "UV_VENV_SEED", "UV_REQUIRE_HASHES"),
    *("UV_BREAK_SYSTEM_PACKAGES", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
    "__PYVENV_LAUNCHER__",
)

_PATHS = ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "UV_OVERRIDE")

# Tools wrap lines to the width that they are told of, and colour them.
_PLAIN = {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1", "PIP_NO_INPUT": "1"}


@dataclass(frozen=True, slots=True)
class Indexes:
    """What pip and uv were told, under the names of pip's variables where both have one; and the
    digests of files that are named there, or that uv reads."""

    settings: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]

    def digest(self) -> str:
        fields = (self.settings, [digest for _, digest in self.files])
        return hashlib.blake2b(repr(fields).encode(errors="surrogateescape")).hexdigest()

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables for either tool: told the same, and nothing of where to install."""
        told = {name: value for name, value in environ.items() if name not in _DROPPED}
        for name, value in self.settings:
            told[name] = value
            if name in _SAME and not any(environ.get(each) for each in _SAME[name]):
                uv_name = _SAME[name][0]
                told[uv_name] = _as_uv(uv_name, value)
                if uv_name == "UV_INDEX":
                    # As pip does it. uv by itself asks the indexes one after the other.
                    told.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
        return {**told, **_PLAIN}


def read(environ: Mapping[str, str], cwd: str) -> Indexes:
    """The settings of this environment; relative paths in it are relative to `cwd`."""
    found = _pip_files(environ)
    for name, uv_names in _SAME.items():
        said = environ.get(name) or found.get(name)
        for uv_name in uv_names:
            said = said or _as_pip(environ.get(uv_name, ""))
        if said:
            found[name] = said
    found |= {name: environ[name] for name in _OWN if environ.get(name)}
    for name in _PATHS:
        if name in found:
            found[name] = " ".join(_absolute(each, cwd) for each in found[name].split())
    named = " ".join(found.get(name, "") for name in ("PIP_CONSTRAINT", "UV_OVERRIDE"))
    files = [*named.split(), _uv_file(environ)]
    return Indexes(tuple(sorted(found.items())), tuple((each, _digest(each)) for each in files))


def masked(text: str) -> str:
    """The text with no user's name and password in its URLs."""
    return _SECRET.sub(r"\1***@", text)


def _pip_files(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip's files say, the last of them counts; those that do not parse are pip's to tell."""
    import configparser  # not for those who attach

    home = environ.get("HOME", "/nonexistent")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    chosen = environ.get("PIP_CONFIG_FILE")
    paths = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf"]
    paths += [os.path.join(home, ".pip", "pip.conf"), os.path.join(config, "pip", "pip.conf")]
    if chosen:
        paths = [] if chosen == os.devnull else [*paths, chosen]
    parser = configparser.RawConfigParser(strict=False)
    for path in paths:
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
    found = {}
    for name in (*_SAME, *_OWN):
        if name.startswith("PIP_"):
            key = name.removeprefix("PIP_").lower().replace("_", "-")
            for section in ("global", "install"):
                for written in (key, key.replace("-", "_")):
                    if value := parser.get(section, written, fallback=""):
                        found[name] = " ".join(value.split())
    return found


def _uv_file(environ: Mapping[str, str]) -> str:
    """The file that configures uv for this user."""
    home = environ.get("HOME", "/nonexistent")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return environ.get("UV_CONFIG_FILE") or os.path.join(config, "uv", "uv.toml")


def _digest(path: str) -> str:
    """Of what is in a file; empty for none, or for a URL."""
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _as_uv(name: str, value: str) -> str:
    # uv splits its lists of places at commas, those of indexes at spaces.
    return ",".join(value.split()) if name == "UV_FIND_LINKS" else value


def _as_pip(value: str) -> str:
    # uv's may have names: `NAME=URL`.
    parts = (re.sub(r"\A[\w.-]+=(?=\w+:)", "", each) for each in re.split(r"[\s,]+", value))
    return " ".join(filter(None, parts))


def _absolute(place: str, cwd: str) -> str:
    return place if "://" in place else os.path.normpath(os.path.join(cwd, place))
