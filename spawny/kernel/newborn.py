"""What makes a forked daemon the same as one whose interpreter was executed for it.

A user is not to be able to tell them apart: not by what the system shows of the process, nor by the
state of the standard library. What is left is in docs/design.md, under *Zygotes*.
"""

import os
import sys
import time


class Environment:
    """What this process has made of the environment that it was executed with, to be done to that
    of a daemon, too: the interpreter and imported modules may set variables."""

    def __init__(self):
        with open("/proc/self/environ", "rb") as file:
            self._given = set(_entries(file.read()))
        self._own = set()  # names of variables that were set or removed here

    def note_changes(self):
        """Everything is imported. From here on every variable is in memory of its own: C code may
        otherwise have found some where `Areas` writes."""
        now = dict(os.environb)
        given = dict(each.split(b"=", 1) for each in self._given)
        self._own = {name for name in {**now, **given} if now.get(name) != given.get(name)}
        os.environb.update(now)

    def become(self, block):
        """Have the environment of this block (see `Areas.write`), with the same done to it."""
        wanted = _entries(block)
        changed = dict(each.split(b"=", 1) for each in wanted if each not in self._given)
        for each in self._given.difference(wanted):
            name = each.split(b"=", 1)[0]
            if name not in changed and name not in self._own:
                del os.environb[name]
        for name, value in changed.items():
            if name not in self._own:
                os.environb[name] = value


class Areas:
    """Where the system reads the command line and the environment that it shows of this process."""

    def __init__(self, command, environ):
        self._command = command  # (address, size)
        self._environ = environ

    @classmethod
    def of_this_process(cls):
        """None where they are not known, or cannot be written."""
        try:
            with open("/proc/self/stat", "rb") as file:
                found = file.read().rpartition(b")")[2].split()
            # Counted from the third field, see proc(5).
            begin, end, environ_begin, environ_end = map(int, found[45:49])
            areas = cls((begin, end - begin), (environ_begin, environ_end - environ_begin))
            for (address, size), shown in zip(areas, ("cmdline", "environ")):
                with open("/proc/self/" + shown, "rb") as file:
                    content = file.read()
                if len(content) != size:
                    return None
                _write(address, content)
        except (OSError, ValueError):
            return None
        return areas

    def __iter__(self):
        return iter((self._command, self._environ))

    def have_room(self, command):
        return len(command) < self._command[1]

    def write(self, command, environ):
        """Show these blocks, which are texts joined by NULs. Of an environment that has no room the
        mark, which is last, comes first."""
        address, size = self._command
        _write(address, command.ljust(size, b"\0"))
        address, size = self._environ
        if len(environ) >= size:
            environ = b"\0".join(reversed(environ.split(b"\0")))[:size]
            environ = environ[: environ.rindex(b"\0")]
        _write(address, environ.ljust(size, b"\0"))


def _entries(block):
    return [each for each in block.split(b"\0") if b"=" in each]


def _write(address, content):
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pwrite(memory, content, address) != len(content):
            raise OSError("the memory at %#x cannot be written" % address)
    finally:
        os.close(memory)


def absent():
    """Paths where imports have looked in vain: there may be directories by the time of a daemon."""
    return [path for path, finder in sys.path_importer_cache.items() if finder is None]


def renew(command, absent):
    """State of the standard library that is one process's own."""
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = command
    for name in ("zygote", "newborn", "preloaded"):
        sys.modules.pop("%s.%s" % (__package__, name), None)
    for path in absent:
        if os.path.isdir(path):
            del sys.path_importer_cache[path]
    for name, renew_module in _MODULES.items():
        module = sys.modules.get(name)
        if module is not None:
            renew_module(module)


def _renew_random(random):
    random.seed()  # Python 3.6 does not at a fork


def _renew_logging(logging):
    is_whole = isinstance(logging._startTime, int)  # nanoseconds, since 3.13
    logging._startTime = time.time_ns() if is_whole else time.time()


def _renew_threading(threading):
    thread = threading.main_thread()
    if hasattr(thread, "_set_native_id"):
        thread._set_native_id()


def _renew_authkey(process):
    key = process.AuthenticationString(os.urandom(32))
    process.current_process()._config["authkey"] = key


def _renew_finalizers(util):
    # They ignore processes that are not the one that made them.
    for each in list(util._finalizer_registry.values()):
        each._pid = os.getpid()


def _renew_uuid(uuid):
    uuid._last_timestamp = None


def _renew_ssl(ssl):
    # OpenSSL before 1.1.1 tells processes apart by their pids alone, which come again.
    ssl.RAND_add(os.urandom(32), 32.0)


_MODULES = {
    "random": _renew_random,
    "numpy.random": _renew_random,
    "logging": _renew_logging,
    "threading": _renew_threading,
    "multiprocessing.process": _renew_authkey,
    "multiprocessing.util": _renew_finalizers,
    "uuid": _renew_uuid,
    "ssl": _renew_ssl,
}
