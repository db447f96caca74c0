"""A process that has imported what daemons are to import, and forks them on demand.

The one rule: it only makes starts faster, and never lets one fail. What it cannot do as an
interpreter that is started anew would, it refuses, with the reason; the supervisor then starts the
daemon plainly. docs/protocol-zygote.md has what the two say to each other, over a socket that keeps
messages apart.

`boot.py` begins as for a daemon. `serve` returns in every daemon that is forked, on the very stack
that a plain start has.

The next daemon is forked before it is asked for, and waits for the request; where many are asked
for in a row, the next few. They are the supervisor's children: what forked them was forked itself,
and has ended.
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

from . import buffers
from .failures import describe_error
from .listener import Listener, call_path
from .newborn import Areas, Environment, absent, renew
from .preloaded import Preloaded

PROTOCOL = 2
MESSAGE_BYTES = 256 * 1024

# The system still shows a thread for a moment after it has been waited for.
THREAD_SECONDS = 1.0

# While daemons are asked for so soon one after the other, twice as many are forked at once as the
# time before, up to so many: the process between is a sixth of what a start costs.
RUSH_SECONDS = 0.02
MOST_AT_ONCE = 4

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


def serve(fd, protocol, make):
    """((name, token, runtime), listener, made) in each daemon; never returns elsewhere. `made` is
    what `make(preloaded)` has given in the zygote: a daemon has it in memory that they share."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    sock.set_inheritable(False)
    zygote = Zygote(sock)
    try:
        if protocol != str(PROTOCOL):
            raise Unfit("its kernel is of another version of spawny")
        zygote.prepare(make)
        return zygote.wait()
    except Unfit as error:
        zygote.leave(error)


class Zygote:
    """Between two forks it waits until those that it has forked were asked for; it ends with the
    supervisor, or when one of them does without having become a daemon."""

    def __init__(self, sock):
        self._sock = sock
        self._environment = Environment()
        self._areas = None
        self._stamps = []
        self._whose = {}  # thread, or descriptor -> the module that it came with
        self.preloaded = Preloaded()
        self._absent = []
        self._made = None

    def say(self, kind, **fields):
        self._sock.send(json.dumps(dict(fields, type=kind)).encode("ascii"))

    def leave(self, error):
        """It is of no use."""
        self.say("unfit", reason=str(error), lasts=error.lasts)
        os._exit(1)

    def _hear(self, flags=0):
        """(header, descriptors) of the next message; ends with the supervisor. Raises
        BlockingIOError where the flags say not to wait."""
        numbers = array.array("i")
        room = socket.CMSG_SPACE(numbers.itemsize)
        flags |= getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, extra, _, _ = self._sock.recvmsg(MESSAGE_BYTES, room, flags)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        if not data:
            os._exit(1)
        for _, _, content in extra:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
        return json.loads(data.decode("ascii")), list(numbers)

    # --- before the first fork ---

    def prepare(self, make):
        """Import everything, and see whether daemons can be forked then."""
        began = time.monotonic()
        header, _ = self._hear()
        self._areas = Areas.of_this_process()
        if self._areas is None:
            raise Unfit("this system does not let a process change its own command line")
        self._end_with_supervisor(True)
        directories = [_native(each) for each in header["sys_path"]]
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
        self._made = make(self.preloaded)
        _rehearse()
        self._environment.note_changes()
        self._absent = absent()
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
        _fork_for_trial()
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
        """Fork daemons as they are asked for; returns in each of them. The next ones are there
        before they are asked for."""
        count = 1
        while True:
            self._check_threads()
            began = time.monotonic()
            pipes = [os.pipe() for _ in range(count)]
            number, between = _fork_orphans(count)
            if between:
                mouth = pipes[number][1]
                for fd in sum(pipes, ()):
                    if fd != mouth:
                        os.close(fd)
                return self._await_request(mouth, between)
            for _, mouth in pipes:
                os.close(mouth)
            _await_departures([ear for ear, _ in pipes], number)
            is_rush = time.monotonic() - began < number * RUSH_SECONDS
            count = min(2 * number, MOST_AT_ONCE) if is_rush else 1

    def _await_request(self, mouth, between):
        """In one of the next daemons, until it is one; it ends with the zygote."""
        self._why_stale()  # for the pages that it touches: they are copied while nobody waits
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        poller.register(mouth, 0)  # nobody is at the other end: that is always told
        while True:
            if any(fd == mouth for fd, _ in poller.poll()):
                os._exit(1)
            try:
                header, descriptors = self._hear(socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # another one was faster
            name, token, runtime = map(_native, header["arguments"])
            try:
                self._check(header)
                os.chdir(_native(header["cwd"]))
                # Already here, so that clients may knock as soon as it is known.
                listener = Listener(call_path(runtime, name))
            except (OSError, SystemExit, _Refusal) as error:
                for fd in descriptors:
                    os.close(fd)
                is_stale = isinstance(error, _Refusal) and error.is_stale
                self.say("refused", id=header["id"], reason=str(error), is_stale=is_stale)
                continue
            while os.getppid() == between:
                os.sched_yield()  # it may still be forking others
            os.setsid()  # before it is known: nobody ends it with the zygote from here on
            # Before the rest: whoever asked for it connects meanwhile.
            self.say("forked", id=header["id"], pid=os.getpid())
            self._sock.close()
            self._become(header, descriptors[0])
            try:
                os.write(mouth, b"!")
            except OSError:
                pass  # the zygote was killed meanwhile: this is a daemon all the same
            os.close(mouth)
            return (name, token, runtime), listener, self._made

    def _check(self, header):
        why = self._why_stale()
        if why is not None:
            raise _Refusal(why, is_stale=True)
        if not self._areas.have_room(_encoded(header["command"])):
            raise _Refusal("its command line is too long")

    def _become(self, header, log_fd):
        """Be the daemon of this request."""
        for fd in (1, 2):
            os.dup2(log_fd, fd)
        os.close(log_fd)
        environ = _encoded(header["environ"])
        self._areas.write(_encoded(header["command"]), environ)
        self._environment.become(environ)
        renew(_native(header["command"]).split("\0"), self._absent)
        self.preloaded.modules.count = len(sys.modules)  # without those that are only ours

    def _why_stale(self):
        """What has changed on disk since, as far as a daemon would find it otherwise."""
        for path, stamp in self._stamps:
            if _stamp(path) != stamp:
                return "%s has changed" % path
        changed = self.preloaded.modules.changed()
        return "%s has changed" % changed[0][2] if changed else None


class _Refusal(Exception):
    def __init__(self, reason, is_stale=False):
        super().__init__(reason)
        self.is_stale = is_stale


def _encoded(text):
    """The bytes that the supervisor speaks of: it says them as UTF-8, whatever the locale here."""
    return text.encode("utf-8", "surrogateescape")


def _native(text):
    """The same as this interpreter has it."""
    return os.fsdecode(_encoded(text))


def _fork():
    if sys.version_info < (3, 12):
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # for any thread, an expendable one too
        return os.fork()


def _fork_for_trial():
    pid = _fork()
    if not pid:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        os._exit(1)


def _fork_orphans(count):
    """In each of `count` new processes: its number from 0 on, and the pid of the process between,
    its parent until that ends in a moment. In the zygote: how many there are, and None.

    The supervisor inherits them, and so is the only one to wait for them.
    """
    pid = _fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if not os.WIFEXITED(status) or not os.WEXITSTATUS(status):
            os._exit(1)
        return os.WEXITSTATUS(status), None
    between = os.getpid()
    made = 0
    try:
        while made < count:
            if not _fork():
                return made, between
            made += 1
    except OSError:
        traceback.print_exc()
    os._exit(made)


def _await_departures(ears, made):
    """Return once each of so many processes has become a daemon; end where one ends instead, with
    a request perhaps: it is by the end of all that the supervisor knows it unanswered."""
    for ear in ears[made:]:
        os.close(ear)
    poller = select.poll()
    for ear in ears[:made]:
        poller.register(ear, select.POLLIN)
    while made:
        for ear, _ in poller.poll():
            if not os.read(ear, 1):
                os._exit(1)
            poller.unregister(ear)
            os.close(ear)
            made -= 1


def _rehearse():
    """Make now what each daemon would otherwise make at its first use."""
    compile("", "<nothing>", "exec")  # the types of syntax trees, over a hundred
    buffers.can_borrow()


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
