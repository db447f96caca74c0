"""A process that has imported what daemons are to import, and forks them on demand.

The one rule: it only makes starts faster, and never lets one fail. What it cannot do as an
interpreter that is started anew would, it refuses, with the reason; the supervisor then starts the
daemon plainly. docs/protocol-zygote.md has what the two say to each other, over a socket that keeps
messages apart.

`boot.py` begins as for a daemon. `serve` returns in every daemon that is forked, on the very stack
that a plain start has.
"""

import array
import fcntl
import gc
import importlib
import json
import os
import select
import socket
import sys
import time
import traceback
import warnings

from .failures import describe_error
from .listener import Listener, call_path
from .newborn import Areas, Environment, renew
from .preloaded import Preloaded

PROTOCOL = 1
MESSAGE_BYTES = 256 * 1024

# The system still shows a thread for a moment after it has been waited for.
THREAD_SECONDS = 1.0

# Threads that their library does without in a child: there jemalloc (of pyarrow) gives memory back
# as it goes.
_EXPENDABLE = ("jemalloc_bg_thd",)

_HARMLESS = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


class Unfit(Exception):
    """Daemons of this kind cannot be forked; the reason is for people.

    `lasts`: another zygote would fare no better.
    """

    def __init__(self, reason, lasts=True):
        super().__init__(reason)
        self.lasts = lasts


def serve(fd, protocol):
    """((name, token, runtime), preloaded) of a daemon, in the daemon; never returns elsewhere."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    sock.set_inheritable(False)
    zygote = Zygote(sock)
    try:
        if protocol != str(PROTOCOL):
            raise Unfit("its kernel is of another version of spawny")
        zygote.prepare()
        return zygote.wait()
    except Unfit as error:
        zygote.leave(error)


class Zygote:
    """Between two daemons it does nothing but wait for the supervisor, with whom it ends."""

    def __init__(self, sock):
        self._sock = sock
        self._environment = Environment()
        self._areas = None
        self._stamps = []
        self._arguments = None
        self._whose = {}  # thread, or descriptor -> the module that it came with
        self.preloaded = Preloaded()

    def say(self, kind, **fields):
        self._sock.send(json.dumps(dict(fields, type=kind)).encode("ascii"))

    def leave(self, error):
        """It is of no use."""
        self.say("unfit", reason=str(error), lasts=error.lasts)
        os._exit(1)

    def _hear(self):
        """(header, descriptors) of the next message; ends with the supervisor."""
        numbers = array.array("i")
        room = socket.CMSG_SPACE(numbers.itemsize)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, extra, _, _ = self._sock.recvmsg(MESSAGE_BYTES, room, flags)
        except OSError:
            data = b""
        if not data:
            os._exit(_NOTHING_TO_DO)
        for _, _, content in extra:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
        return json.loads(data.decode("ascii")), list(numbers)

    # --- before the first fork ---

    def prepare(self):
        """Import everything, and see whether daemons can be forked then."""
        began = time.monotonic()
        header, _ = self._hear()
        self._areas = Areas.of_this_process()
        if self._areas is None:
            raise Unfit("this system does not let a process change its own command line")
        self._end_with_supervisor(True)
        directories = header["sys_path"]
        sys.path[:0] = [entry for entry in directories if entry not in sys.path]
        self.preloaded.modules.watch(directories)
        self._note_whose(None)
        for name in header["preload"]:
            try:
                importlib.import_module(name)
            except BaseException as error:
                _, kind, message = describe_error(error)
                why = "importing %s raised %s: %s" % (name, kind, message)
                raise Unfit(why, lasts=False) from None
            self._note_whose(name)
        self.preloaded.modules.note()
        self.preloaded.complete()
        self._environment.note_changes()
        self._stamps = [(path, _stamp(path)) for path in _installed()]
        self._end_with_supervisor(False)
        self._try()
        self.say("ready", seconds=round(time.monotonic() - began, 6))

    def _end_with_supervisor(self, at_once):
        """While it imports nothing is sent to it. So a signal that tells of news on the socket, and
        which ends the process, tells of the end of it."""
        fd = self._sock.fileno()
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC if at_once else flags & ~os.O_ASYNC)
        if select.select([fd], [], [], 0)[0]:
            os._exit(1)  # it has ended before

    def _note_whose(self, module):
        for each in _threads() + _descriptors():
            self._whose.setdefault(each, module)

    def _try(self):
        """One fork for trial. Libraries may end their threads before a fork (OpenBLAS does)."""
        gc.collect()
        if hasattr(gc, "freeze"):
            gc.freeze()  # else every collection of a daemon would copy pages
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            raise Unfit("importing has started another process")
        for each in _descriptors():
            module, target = self._whose.get(each), _target(each)
            if module is not None and target not in _HARMLESS:
                raise Unfit("%s leaves %s open" % (module, target))
        _fork_and_wait(lambda: None)
        deadline = time.monotonic() + THREAD_SECONDS
        while self._others() and time.monotonic() < deadline:
            os.sched_yield()
        self._check_threads()

    def _others(self):
        """The threads that a fork would lose."""
        found = _threads()
        if len(found) == 1:
            return []
        main = "task/%d" % os.getpid()
        return [each for each in found if each != main and _thread_name(each) not in _EXPENDABLE]

    def _check_threads(self):
        found = self._others()
        if found:
            names = ", ".join(sorted(repr(_thread_name(each)) for each in found))
            modules = {self._whose.get(each) for each in found} - {None}
            whose = " of %s" % ", ".join(sorted(modules)) if modules else ""
            raise Unfit("threads%s run, which a fork would lose: %s" % (whose, names))

    # --- forking ---

    def wait(self):
        """Fork daemons as they are asked for; returns in each of them.

        The process between us and a daemon is there before it is needed: it is the one that waits
        for the request. Then it forks, tells the daemon's pid and ends, which makes the daemon a
        child of the supervisor. The pid cannot be another's until that has waited for it.
        """
        while True:
            self._check_threads()
            if _fork_and_wait(self._fork):
                return self._arguments, self.preloaded

    def _fork(self):
        """In the process between: True in the daemon, False when another is to wait."""
        self._why_stale()  # for the pages that it touches: they are copied while nobody waits
        header, descriptors = self._hear()
        why = self._why_stale()
        if why is not None:
            return self._refuse(header, why, is_stale=True)
        if not self._areas.have_room(header["command"]):
            return self._refuse(header, "its command line is too long")
        name, _, runtime = header["arguments"]
        self.preloaded.parent = os.getpid()
        try:
            os.chdir(header["cwd"])
            # Already here, so that clients may knock as soon as there is a process.
            listener = self.preloaded.listener = Listener(call_path(runtime, name))
        except (OSError, SystemExit) as error:
            return self._refuse(header, str(error))
        try:
            pid = os.fork()
        except OSError as error:
            listener.unlink()
            return self._refuse(header, str(error))
        if pid:
            self.say("forked", id=header["id"], pid=pid)
            return False
        self._become(header, descriptors[0])
        return True

    def _refuse(self, header, reason, **fields):
        self.say("refused", id=header["id"], reason=reason, **fields)
        return False

    def _become(self, header, log_fd):
        """Be the daemon of this request."""
        self._sock.close()
        for fd in (1, 2):
            os.dup2(log_fd, fd)
        os.close(log_fd)
        self._areas.write(header["command"], header["environ"])
        self._environment.become(header["environ"])
        renew(header["command"])
        self._arguments = header["arguments"]

    def _why_stale(self):
        """What has changed on disk since, as far as a daemon would find it otherwise."""
        for path, stamp in self._stamps:
            if _stamp(path) != stamp:
                return "%s has changed" % path
        changed = self.preloaded.modules.changed()
        return "%s has changed" % changed[0][2] if changed else None


# How a child ends that has heard of no more than the supervisor's end.
_NOTHING_TO_DO = 3


def _fork_and_wait(action):
    """Have a child do `action()` and end; True in the child if that gives True."""
    with warnings.catch_warnings():
        # Since Python 3.12 for any thread, even an expendable one.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == _NOTHING_TO_DO:
            os._exit(1)
        return False
    try:
        if action():
            return True
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


# --- what a fork would lose, or share -------------------------------------------------------------


def _threads():
    return ["task/" + each for each in os.listdir("/proc/self/task")]


def _thread_name(thread):
    try:
        with open("/proc/self/%s/comm" % thread) as file:
            return file.read().strip()
    except OSError:
        return thread


def _descriptors():
    return ["fd/" + each for each in os.listdir("/proc/self/fd") if _target("fd/" + each)]


def _target(descriptor):
    try:
        return os.readlink("/proc/self/" + descriptor)
    except OSError:
        return None  # that of the listing


# --- what may change on disk ----------------------------------------------------------------------


def _installed():
    """The interpreter, and the directories of its packages: a package that is installed, upgraded
    or removed shows in its directory."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    yield os.path.realpath(sys.executable)
    yield os.path.join(sys.prefix, "pyvenv.cfg")
    for entry in sys.path:
        parts = entry.split(os.sep)
        is_site = "site-packages" in parts or "dist-packages" in parts
        if is_site or any(entry.startswith(each + os.sep) for each in prefixes):
            yield entry


def _stamp(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
