"""Our code inside a daemon.

This package is the only part of spawny that runs under the user's interpreter, so it has its own
rules: standard library only, Python 3.6 syntax, relative imports only, no import of the rest of
spawny. `boot.py` loads it under a private name, straight from its folder: nothing needs to be
installed in the daemon's environment and nothing of ours appears on its `sys.path`.

Two threads. The *main* thread (`server.py`) runs all user code: it loads the definition, then
answers calls, reading its sockets itself while idle. The *control* thread (`guard.py`) accepts
connections, talks to the supervisor (`phone.py`), notices the end of clients and decides when the
daemon ends; it never runs user code, so it answers even while a call takes hours.

The supervisor and the client import the two codecs from here: `wire.py` and `link.py`.
"""
