"""The interpreter of this process and what is installed for it, and what of that has changed since.

The one rule: where a stamp has changed, it is looked at closer before anything is said. The time of
a directory of packages changes, too, when bytecode is first written there, or by pip's own
temporary files; what counts is which distributions it holds.
"""

import os
import sys

from .stamps import crc_of, stamp_of

# path of a directory -> (its stamp, its distributions): for daemons that are forked from a process
# that has read it, since a large one takes a millisecond.
_read = {}

_METADATA = ("dist-info", "egg-info")
_PACKAGES = ("site-packages", "dist-packages")


class Surroundings:
    """What a process cannot change of itself, and finds changed by others."""

    def __init__(self):
        self._interpreter = None
        self._settings = None
        self._environments = []

    def note(self):
        """What is there now is what this process has been started with."""
        self._interpreter = _Interpreter(sys.executable) if sys.executable else None
        if sys.prefix != sys.base_prefix:
            self._settings = _Settings(os.path.join(sys.prefix, "pyvenv.cfg"))
        found = []
        for entry in sys.path:
            if os.path.basename(entry) in _PACKAGES and entry not in found:
                found.append(entry)
        self._environments = [_Environment(each) for each in found]

    def changed(self):
        """As `Drift.found`."""
        parts = [self._interpreter, self._settings] + self._environments
        return [each for part in parts if part is not None for each in part.changed()]


class _Interpreter:
    """An executable, by the path that it was started by; which may be a link, as in a venv."""

    def __init__(self, path):
        self._path = path
        self._real = os.path.realpath(path)
        self._stamp = stamp_of(path)
        self._inode = self._inode_now()

    def changed(self):
        if self._inode_now() == self._inode and stamp_of(self._path) == self._stamp:
            return []
        stamp, real = stamp_of(self._path), os.path.realpath(self._path)
        if stamp is None:
            text = "interpreter %s is gone" % self._path
        elif real != self._real:
            text = "interpreter %s is %s now, and was %s" % (self._path, real, self._real)
        elif stamp != self._stamp:
            text = "interpreter %s was replaced" % self._path
        else:
            return []  # a package that was installed again as it was: it has the same time
        return [("interpreter", self._path, self._path, text)]

    def _inode_now(self):
        try:
            return os.stat(self._path).st_ino
        except OSError:
            return None


class _Settings:
    """The file that makes a directory a virtual environment."""

    def __init__(self, path):
        self._path = path
        self._stamp, self._crc = stamp_of(path), crc_of(path)

    def changed(self):
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return []
        if stamp is not None and crc_of(self._path) == self._crc:
            self._stamp = stamp
            return []
        text = "%s %s" % (self._path, "is gone" if stamp is None else "was edited")
        return [("interpreter", self._path, self._path, text)]


class _Environment:
    """A directory of installed distributions."""

    def __init__(self, path):
        self._path = path
        self._stamp, self._told = stamp_of(path), []
        if self._stamp is None or _read.get(path, ())[:1] != (self._stamp,):
            _read[path] = self._stamp, _distributions(path)
        self._first = _read[path][1]

    def changed(self):
        stamp = stamp_of(self._path)
        if stamp != self._stamp:
            self._told = list(self._differences())
            self._stamp = stamp
        return self._told

    def _differences(self):
        before, after = self._first, _distributions(self._path)
        if after is None:
            if before is not None:
                text = "%s is gone" % self._path
                yield "environment", self._path, self._path, text
            return
        before = before or {}
        for name in sorted(set(before) | set(after)):
            if before.get(name) == after.get(name):
                continue
            shown, version, _ = after.get(name) or before[name]
            if name not in after:
                text = "%s %s is not installed any more" % (shown, version)
            elif name not in before:
                text = "%s %s was installed" % (shown, version)
            elif before[name][1] == version:
                text = "%s %s was installed anew" % (shown, version)
            else:
                text = "%s %s -> %s" % (shown, before[name][1], version)
            yield "environment", shown, self._path, text


def _distributions(path):
    """{normalized name: (name, version, time)} of what is installed there; None without such a
    directory. The time is that of the metadata, which each installation makes anew."""
    found = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                stem, _, kind = entry.name.rpartition(".")
                if kind not in _METADATA or stem[:1] == "~":
                    continue  # the last is what pip is about to remove
                name, _, version = stem.partition("-")
                version = version.partition("-")[0]  # of an egg, the Python follows
                key = name.lower().replace("-", "_").replace(".", "_")
                found[key] = name, version, entry.stat().st_mtime_ns
    except OSError:
        return None
    return found
