"""Modules of the caller's own source directories, and which of them have changed on disk since.

The one rule: a module is noted before the client hears of the request that imported it, so whoever
edits its file afterwards is found out. Looking at files is all that is done here; no user code
runs, since the control thread asks for changes while the main thread may be in a call.
"""

import os
import sys
import zlib

# At an attachment so many files are looked at, for a microsecond or two each. Modules beyond are
# not noted: who has more of them has other tools to know what is old.
MODULES_LIMIT = 300

# Of larger files (of extension modules, as a rule) the time and the size have to do.
CONTENT_LIMIT_BYTES = 4 * 1024 * 1024

_module_dict = type(sys).__dict__["__dict__"].__get__


class Modules:
    """What this process has imported from some directories."""

    def __init__(self):
        self.count = len(sys.modules)  # when `note` looked last; for the quick look before that
        self._directories = ()
        self._foreign = ()
        self._seen = set(sys.modules)
        self._noted = {}  # name -> _Noted

    def watch(self, directories):
        """Note what is imported from there from now on; never what is installed."""
        self._directories = tuple(_with_separator(each) for each in directories)
        prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.__file__)}
        prefixes.update([os.path.realpath(each) for each in prefixes])
        self._foreign = tuple(_with_separator(each) for each in prefixes)

    def note_first(self, root):
        """The same once the definition has made this root; where that is a module, from its own
        folder, too, which only the definition may know."""
        if type(root) is type(sys):
            file = _file(root.__name__)
            if file is not None:
                self._directories += (_with_separator(os.path.dirname(file)),)
        self.note()

    def note(self):
        """On the main thread, when the number of modules has changed: note the new ones."""
        self.count = len(sys.modules)
        for name in set(sys.modules).difference(self._seen):
            self._seen.add(name)
            if len(self._noted) < MODULES_LIMIT:
                noted = self._look(name)
                if noted is not None:
                    self._noted[name] = noted

    def changed(self):
        """[(name, file)] of those whose file is not what was loaded; from the control thread."""
        return sorted(
            (name, noted.file) for name, noted in list(self._noted.items()) if self._is_old(name)
        )

    def _is_old(self, name):
        noted = self._noted[name]
        if noted.spec is not _attribute(name, "__spec__"):
            # It was reloaded, or imported anew, at a time that we do not know; or is there no more.
            noted = self._look(name)
            if noted is None:
                return False
            self._noted[name] = noted
        stamp = _stamp(noted.file)
        if stamp == noted.stamp:
            return False
        if stamp is None or noted.crc is None or _crc(noted.file) != noted.crc:
            return True
        noted.stamp = stamp  # it was touched, or written anew as it is
        return False

    def _look(self, name):
        file = _file(name)
        if file is None or not self._is_own(file):
            return None
        stamp = _stamp(file)
        return stamp and _Noted(file, _attribute(name, "__spec__"), stamp, _crc(file))

    def _is_own(self, file):
        parts = file.split(os.sep)
        return (
            file.startswith(self._directories)
            and not file.startswith(self._foreign)
            and "site-packages" not in parts
            and "dist-packages" not in parts
        )


class _Noted:
    __slots__ = ("crc", "file", "spec", "stamp")

    def __init__(self, file, spec, stamp, crc):
        self.file = file
        self.spec = spec  # each import and each reload makes a new one
        self.stamp = stamp
        self.crc = crc


def _file(name):
    """The absolute path of a module's file, if it has one."""
    file = _attribute(name, "__file__")
    try:
        return os.path.abspath(file) if type(file) is str else None
    except OSError:  # a relative one, and the current directory was deleted
        return None


def _attribute(name, attribute):
    """That of a module as it lies in its `__dict__`: a lazy one would import itself to tell."""
    try:
        return _module_dict(sys.modules[name]).get(attribute)
    except (KeyError, TypeError):  # not there any more, or no module but something in its place
        return None


def _stamp(file):
    """What changes when a file is written; None where there is none."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def _crc(file):
    """Tells one content from another; None where it is too long, or cannot be read."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(CONTENT_LIMIT_BYTES + 1)
    except (OSError, ValueError):
        return None
    return zlib.crc32(content) if len(content) <= CONTENT_LIMIT_BYTES else None


def _with_separator(directory):
    return directory if directory.endswith(os.sep) else directory + os.sep
