"""Modules of the caller's own source directories, and which of them have changed on disk since.

The one rule: a module is noted before the client hears of the request that imported it, so whoever
edits its file afterwards is found out. Looking at files is all that is done here; no user code
runs, since the control thread asks for changes while the main thread may be in a call.
"""

import os
import sys

from .load import SCRIPT_PREFIX, script_name
from .stamps import crc_of, stamp_of

# At an attachment so many files are looked at, for a microsecond or two each. Modules beyond are
# not noted: who has more of them has other tools to know what is old.
MODULES_LIMIT = 300

_module_dict = type(sys).__dict__["__dict__"].__get__


class Modules:
    """What this process has imported from some directories."""

    def __init__(self):
        self.count = len(sys.modules)  # when `note` looked last; for the quick look before that
        self._directories = ()
        self._foreign = ()
        self._seen = set(sys.modules)
        self._noted = {}  # name -> _Noted
        self._script = None  # the one that the root was made from

    def watch(self, directories):
        """Note what is imported from there from now on; never what is installed."""
        self._directories = tuple(_with_separator(each) for each in directories)
        if not self._foreign:  # of this interpreter: a zygote has found them
            prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.__file__)}
            prefixes.update([os.path.realpath(each) for each in prefixes])
            self._foreign = tuple(_with_separator(each) for each in prefixes)

    def note_first(self, root):
        """The same once the definition has made this root; where that is a module, from its own
        folder, too, which only the definition may know."""
        if type(root) is type(sys):
            name = root.__name__
            file = _file(name)
            if file is not None:
                self._directories += (_with_separator(os.path.dirname(file)),)
                if name.startswith(SCRIPT_PREFIX):
                    self._script = _Script(name, file)
            if name.startswith(SCRIPT_PREFIX):
                self._seen.add(name)
                self.count += 1
        # To look at each name would copy a hundred pages of a process that was forked.
        if len(sys.modules) != self.count:
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
        """Those whose file is not what was loaded, as `Drift.found`; from the control thread."""
        found = [] if self._script is None else self._script.changed()
        for name, noted in sorted(list(self._noted.items())):
            if self._is_old(name):
                found.append(("module", name, noted.file, "module %s (%s)" % (name, noted.file)))
        return found

    def is_below(self, name, directory):
        """Is it a module of this directory, and not one that is installed there?"""
        file = _file(name)
        return file is not None and _is_own(file, (_with_separator(directory),), self._foreign)

    def _is_old(self, name):
        noted = self._noted[name]
        if noted.spec is not _attribute(name, "__spec__"):
            # It was reloaded, or imported anew, at a time that we do not know; or is there no more.
            noted = self._look(name)
            if noted is None:
                return False
            self._noted[name] = noted
        stamp = stamp_of(noted.file)
        if stamp == noted.stamp:
            return False
        if stamp is None or noted.crc is None or crc_of(noted.file) != noted.crc:
            return True
        noted.stamp = stamp  # it was touched, or written anew as it is
        return False

    def _look(self, name):
        file = _file(name)
        if file is None or not _is_own(file, self._directories, self._foreign):
            return None
        stamp = stamp_of(file)
        return stamp and _Noted(file, _attribute(name, "__spec__"), stamp, crc_of(file))


class _Noted:
    __slots__ = ("crc", "file", "spec", "stamp")

    def __init__(self, file, spec, stamp, crc):
        self.file = file
        self.spec = spec  # each import and each reload makes a new one
        self.stamp = stamp
        self.crc = crc


class _Script:
    """The file of a script, which must still have the text that runs: not what the file held when
    this was made, as it may have been edited before the daemon was started anew."""

    def __init__(self, name, file):
        self._name = name
        self._file = file
        self._stamp = None
        self._is_old = False

    def changed(self):
        stamp = stamp_of(self._file)
        if stamp != self._stamp:
            self._is_old = stamp is not None and not self._has_its_text()
            self._stamp = stamp
        if not self._is_old:
            return []
        name = os.path.basename(self._file)
        return [("script", name, self._file, "script %s" % self._file)]

    def _has_its_text(self):
        import tokenize  # some versions of Python have it loaded by now, others not

        try:
            with tokenize.open(self._file) as opened:  # as those who start a script's file do
                return script_name(opened.read()) == self._name
        except (OSError, SyntaxError, ValueError):
            return False


def _is_own(file, directories, foreign):
    parts = file.split(os.sep)
    return (
        file.startswith(directories)
        and not file.startswith(foreign)
        and "site-packages" not in parts
        and "dist-packages" not in parts
    )


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


def _with_separator(directory):
    return directory if directory.endswith(os.sep) else directory + os.sep
