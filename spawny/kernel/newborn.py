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
            given = file.read().split(b"\0")
        self._given = dict(each.split(b"=", 1) for each in given if b"=" in each)
        self._set = {}
        self._removed = []

    def note_changes(self):
        """Everything is imported. From here on every variable is in memory of its own: C code may
        otherwise have found some where `Areas` writes."""
        now = dict(os.environb)
        self._set = {k: v for k, v in now.items() if self._given.get(k) != v}
        self._removed = [k for k in self._given if k not in now]
        os.environb.update(now)

    def become(self, given):
        """Have this environment, with the same done to it."""
        wanted = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
        wanted.update(self._set)
        for name in self._removed:
            wanted.pop(name, None)
        for name in [each for each in os.environb if each not in wanted]:
            del os.environb[name]
        for name, value in wanted.items():
            if os.environb.get(name) != value:
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
        return len(_block(map(os.fsencode, command))) <= self._command[1]

    def write(self, command, environ):
        """Show these; of an environment that has no room the mark, which is last, comes first."""
        _write(self._command[0], _block(map(os.fsencode, command)).ljust(self._command[1], b"\0"))
        address, size = self._environ
        variables = [os.fsencode("%s=%s" % each) for each in environ.items()]
        block = _block(variables)
        if len(block) > size:
            block = _block(reversed(variables))[:size]
            block = block[: block.rindex(b"\0") + 1]
        _write(address, block.ljust(size, b"\0"))


def _block(texts):
    return b"".join(each + b"\0" for each in texts)


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
    """A session, and state of the standard library that is one process's own."""
    os.setsid()
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
