"""Programs of a client, run here as `python` would run them: `spawny python`.

The one rule: while one runs, descriptors 0 to 2 are the client's own, which it has passed; so what
it prints, reads or starts behaves as in its terminal, and nothing of that passes through us. What a
program changes of the process (its directory, `sys.argv`, `__main__`, handlers of signals) is put
back after it; what it has imported stays, but for the modules of its own folder, which may be
edited before the next time.

A client's programs are one run each, or the blocks of one interactive session, which share their
`__main__`.
"""

import builtins
import contextlib
import errno
import fcntl
import linecache
import os
import select
import signal
import sys
import threading
import types

from .failures import KernelError, format_error

_FOLDER = os.path.dirname(__file__)

# As a shell has it for a program that SIGINT has ended.
INTERRUPTED = 130


class Programs:
    """Runs them; `server` is the daemon's."""

    def __init__(self, server, calls):
        self._server = server
        self._calls = calls
        self._main_thread = threading.get_ident()

    def run(self, connection, flags, kind, text, argv, folder, directory, encoding):
        """The handler of PROGRAM: what `text` is, its `kind` says.

        "code", "input", or the "file" or "module" of this name is run by itself; the result is its
        exit code. A "block" is the next of an interactive session, and has none (None) until one
        exits. `folder` is where imports look first, `directory` the current one.
        """
        session = connection.session
        if threading.get_ident() != self._main_thread:
            text = (
                "a call in daemon %r waits for a callback, and no program can run until it is over"
            )
            raise KernelError("SpawnyError", text % self._server.name)
        descriptors = session.take_descriptors()
        try:
            if len(descriptors) != 3:
                raise KernelError("SpawnyError", "a program needs the descriptors of its client")
            main = session.main or _Main(self._server, folder, directory)
            # No KeyboardInterrupt before the program or after it: what has begun is put back.
            with self._calls.interrupts_held():
                self._server.flush()
                with self._terminal(descriptors, encoding), main.in_place(argv):
                    code = self._outcome(main, kind, text)
                if kind == "block":
                    session.main = main  # until `Server.forget`
                    session.descriptors.extend(descriptors)
                    descriptors = []
                else:
                    main.end()
                self._calls.heed_interrupt()  # the program has had it, whatever it made of that
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if session.is_over:
                session.close_descriptors()
        return self._server.answers.encode(connection, code)

    def _outcome(self, main, kind, text):
        """The exit code."""
        try:
            with self._calls.interrupts_let_through():
                _RUN[kind](main, text)
            code = None if kind == "block" else 0
        except BaseException as error:
            code = _reported(error)
            if kind == "block" and not isinstance(error, SystemExit):
                code = None
        if self._server.is_child:
            _flush()
            os._exit(code or 0)  # it has forked, and come to its end as a program would
        return code

    @contextlib.contextmanager
    def _terminal(self, descriptors, encoding):
        """Those of the client in place of our own."""
        names = ("stdin", "stdout", "stderr")
        streams = [getattr(sys, name) for name in names]
        forwards = self._server.forwards
        ours = [_put_away(number) for number in range(3)]
        try:
            self._server.forwards = False
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            for name, stream in zip(names, _streams(encoding)):
                setattr(sys, name, stream)
                setattr(sys, "__%s__" % name, stream)
            yield
        finally:
            _flush()
            self._server.flush()  # what was printed to streams that somebody has kept
            for name, stream in zip(names, streams):
                setattr(sys, name, stream)
                setattr(sys, "__%s__" % name, stream)
            for number, descriptor in enumerate(ours):
                if descriptor is None:
                    os.close(number)
                else:
                    os.dup2(descriptor, number)
                    os.close(descriptor)
            self._server.forwards = forwards


class _Main:
    """The module `__main__` of a program, and what else is its own."""

    def __init__(self, server, folder, directory):
        self.module = types.ModuleType("__main__")
        self.names = self.module.__dict__
        self.names.update(
            __builtins__=builtins, __annotations__={}, __loader__=None, root=server.exports.root
        )
        self.folder = folder
        self.directory = directory
        self._own = os.path.join(directory, folder)
        self._watched = server.drift.modules
        self._modules = set(sys.modules)

    @contextlib.contextmanager
    def in_place(self, argv):
        """This process looks as the program expects it."""
        before = sys.argv, sys.modules.get("__main__")
        directory = _current_directory()
        handler = signal.getsignal(signal.SIGINT)
        os.chdir(self.directory)
        sys.argv = list(argv)
        sys.modules["__main__"] = self.module
        sys.path.insert(0, self.folder)
        try:
            yield
        finally:
            if self.folder in sys.path:
                sys.path.remove(self.folder)
            sys.argv, sys.modules["__main__"] = before
            self.directory = _current_directory() or self.directory  # for the next block
            if directory is not None:
                with contextlib.suppress(OSError):
                    os.chdir(directory)
            if handler is not None:  # as that of C code is
                signal.signal(signal.SIGINT, handler)

    def end(self):
        """Its own modules are to be imported anew the next time."""
        for name in set(sys.modules).difference(self._modules):
            if self._watched.is_below(name, self._own):
                del sys.modules[name]


# --- what there is to run -------------------------------------------------------------------------


def _code(main, text):
    code = compile(text, "<string>", "exec", 0, True)
    if sys.version_info >= (3, 13):  # which shows its lines in tracebacks
        lines = text.splitlines(True)
        linecache.cache["<string>"] = len(text), None, lines, "<string>"
    exec(code, main.names)


def _input(main, text):
    exec(compile(text, "<stdin>", "exec", 0, True), main.names)


def _block(main, text):
    exec(compile(text, "<stdin>", "single", 0, True), main.names)


def _file(main, path):
    if os.path.isdir(path):
        import runpy

        runpy.run_path(path, {"root": main.names["root"]}, "__main__")
        return
    with open(path, "rb") as opened:
        text = opened.read()
    if sys.version_info >= (3, 9):
        path = os.path.abspath(path)
    main.names["__file__"] = path
    exec(compile(text, path, "exec", 0, True), main.names)


def _module(main, name):
    import runpy

    runpy.run_module(name, {"root": main.names["root"]}, "__main__", alter_sys=True)


_RUN = {"code": _code, "input": _input, "block": _block, "file": _file, "module": _module}


# --- how it ends ----------------------------------------------------------------------------------


def _reported(error):
    """The exit code for what ended a program, which is shown as `python` shows it."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        with contextlib.suppress(Exception):
            sys.stderr.write("%s\n" % (error.code,))
        return 1
    if isinstance(error, BrokenPipeError) and _is_broken(1):
        return 0  # `| head` has seen enough
    with contextlib.suppress(Exception):
        _flush()
        _show(error)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _show(error):
    """Without the frames that are ours: those before the program, and that of the interrupt."""
    first = error.__traceback__
    while first is not None and _is_ours(first):
        first = first.tb_next
    last = each = first
    while each is not None:
        last = last if _is_ours(each) else each
        each = each.tb_next
    if last is not None and last.tb_next is not None:
        try:
            last.tb_next = None
        except (AttributeError, TypeError):  # Python 3.6
            sys.stderr.write(format_error(error))
            return
    sys.excepthook(type(error), error.with_traceback(first), first)


def _is_ours(entry):
    return entry.tb_frame.f_code.co_filename.startswith(_FOLDER)


def _is_broken(descriptor):
    """Does nobody read that pipe any more?"""
    poller = select.poll()
    poller.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


# --- streams --------------------------------------------------------------------------------------


def _streams(encoding):
    """As `python` makes them, but that a pipe gets each line as it is printed, too."""
    yield open(0, encoding=encoding, errors="surrogateescape", closefd=False)
    for number, errors in ((1, "surrogateescape"), (2, "backslashreplace")):
        yield open(number, "w", 1, encoding=encoding, errors=errors, closefd=False)


def _flush():
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a pipe that nobody reads; a stream of the program's
            stream.flush()


def _put_away(number):
    """A copy of this descriptor of ours; None where user code has closed it."""
    try:
        copy = fcntl.fcntl(number, fcntl.F_DUPFD, 3)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    os.set_inheritable(copy, False)
    return copy


def _current_directory():
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None
