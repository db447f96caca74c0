"""A daemon that speaks the real link and nothing else, and behaves as its name says.

`dies`, `mute` and `garbage` never get as far as a hello. The others load their "definition", a
word: `ready`, `raise`, `slow` (never ready) or `die`. `stubborn` takes neither stop nor SIGTERM for
an answer, `deaf` reads nothing after its hello, `leaves` starts a child that outlives it, `orphans`
a grandchild without a parent.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.environ["SPAWNY_SOURCE"])

from spawny.kernel import link, wire

name, token, runtime = sys.argv[1:4]
link_path = os.path.join(runtime, "link.sock")
call_path = os.path.join(runtime, "d", name + ".sock")


def connect(state):
    home = socket.socket(socket.AF_UNIX)
    home.connect(link_path)
    hello = {
        "type": "hello",
        "link": 1,
        "name": name,
        "token": token,
        "pid": os.getpid(),
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "state": state,
        "clients": 0,
        "calls": 0,
    }
    home.sendall(link.encode(hello))
    return home


def frames(home):
    decoder = link.Decoder()
    while True:
        try:
            data = home.recv(65536)
        except ConnectionError:
            return
        if not data:
            return
        yield from decoder.feed(data)


def serve(state):
    """One link's life; the state afterwards, None when it is time to end."""
    home = connect(state)

    def say(**header):
        with contextlib.suppress(ConnectionError):  # the supervisor is gone, which is no end of us
            home.sendall(link.encode(header))

    if name.startswith("deaf"):
        signal.pause()
    for header, blob in frames(home):
        kind = header["type"]
        if kind == "load":
            state = load(blob.decode(), header, say)
            if state is None:
                return None
        elif kind == "ping":
            say(type="pong", id=header["id"], clients=1, calls=5, busy=None)
        elif kind == "interrupt":
            say(type="interrupted", id=header["id"], done=name.startswith("busy"))
        elif kind == "recycle" and not name.startswith("stubborn"):
            say(type="ending", reason=header["reason"], recycled=True, saved=False)
            return None
        elif kind == "stop" and not name.startswith("stubborn"):
            say(type="ending", reason=header["reason"])
            return None
    return state


def load(word, header, say):
    print("loading", word, header["summary"], flush=True)
    if word == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "raise":
        say(type="failed", error="ValueError: x", traceback="Traceback ...")
        say(type="ending", reason="the definition failed")
        return None
    if word == "slow":
        return "loading"
    say(type="ready", seconds=0.1)
    return "ready"


def main():
    print("hello from", name, flush=True)
    if name.startswith("dies"):
        print("cannot find my library", file=sys.stderr, flush=True)
        sys.exit(3)
    if name.startswith("mute"):
        signal.pause()
    if name.startswith("garbage"):
        home = socket.socket(socket.AF_UNIX)
        home.connect(link_path)
        home.sendall(b"\xff" * 100)
        signal.pause()
    if name.startswith("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name.startswith("leaves"):
        sleep = [sys.executable, "-c", "import signal; signal.pause()", os.environ["SPAWNY_HOME"]]
        print(subprocess.Popen(sleep).pid, flush=True)
    if name.startswith("orphans") and os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    calls = socket.socket(socket.AF_UNIX)
    calls.bind(call_path)
    calls.listen()
    state = "new"
    while True:
        state = serve(state)
        if state is None:
            os.unlink(call_path)
            sys.exit(0)
        # The link is lost: whoever supervises next pokes us.
        while True:
            poker, _ = calls.accept()
            if poker.recv(100) == wire.frame(wire.POKE):
                break


main()
