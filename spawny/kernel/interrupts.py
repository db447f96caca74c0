"""A KeyboardInterrupt for the thread that a request runs on.

The main thread gets a signal, which ends system calls, too. For any other thread CPython can only
be asked to raise an exception in its byte code, once a system call has come back by itself; other
implementations cannot be asked.
"""

import signal
import sys
import threading

_main_thread = threading.main_thread().ident


def send(running):
    """Interrupt the thread of this request; its handler or `forget` sees to late arrivals."""
    if running.thread == _main_thread:
        signal.pthread_kill(_main_thread, signal.SIGINT)
    else:
        _set_exception(running.thread, KeyboardInterrupt)


def forget(running):
    """On the thread of the request, which is over: nothing may be raised in it any more."""
    if running.thread != _main_thread and running.is_cancelled:
        _set_exception(running.thread, None)


def _set_exception(thread, kind):
    if sys.implementation.name != "cpython":
        return
    import ctypes  # half a megabyte, for what next to no daemon ever does

    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
