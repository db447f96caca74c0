"""What travels to a daemon and back, and what is said where something cannot."""

import os
import socket
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests import interpreters
from tests.end_to_end.processes import Script

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

ECHO = "def echo(x):\n    return x\ndef apply(f, *args):\n    return f(*args)\n"


THREAD = """
import threading
def start(path):
    def wait():
        with open(path) as fifo:
            print("the thread read", fifo.read())
    threading.Thread(target=wait).start()
"""


def another_version() -> str:
    """An interpreter that cannot execute our byte code."""
    for each in interpreters.find():
        if each.version[:2] != sys.version_info[:2]:
            return str(each.path)
    pytest.skip("there is only one version of Python here")


def test_what_is_defined_in_the_running_script() -> None:
    """It goes by its code to the same version. To another it goes by source, and what has none (it
    was typed in) is refused by name."""
    with Script(
        """
        import sys, spawny
        def double(n):
            return 2 * n
        class Pair:
            def __init__(self, a, b): self.a, self.b = a, b
            def total(self): return self.a + self.b
        same = spawny.run_script(sys.argv[1])
        print("same", same.apply(double, 21), same.apply(Pair.total, Pair(1, 2)))
        pair = spawny.run_object(Pair(3, 4))
        print("object", pair.total())
        other = spawny.run_script(sys.argv[1], python_exe=sys.argv[2])
        for what in (double, Pair(1, 2), lambda: 1):
            try:
                other.echo(what)
            except spawny.SerializationError as error:
                print("refused", error)
        try:
            spawny.run_object(Pair(3, 4), python_exe=sys.argv[2])
        except spawny.DaemonStartError as error:
            print("refused", error)
        """,
        ECHO,
        another_version(),
    ) as client:
        assert client.until("same") == "same 42 3"
        assert client.until("object") == "object 7"
        assert "double (<string>, line 3) cannot go by source" in client.until("refused")
        assert "Pair.__init__ (<string>, line 6) cannot go by source" in client.until("refused")
        assert "<lambda> (<string>" in client.until("refused")
        assert "__main__.Pair to run holds code of" in client.until("refused")
        assert client.end()[0] == 0


def test_a_large_value_of_classes_that_both_have() -> None:
    """It comes as a copy, over 64 KB too, and the connection serves on."""
    module = spawny.run_script(
        ECHO + "from fractions import Fraction\n"
        "def many(n):\n    return [Fraction(k, 7) for k in range(n)]\n"
    )
    assert module.many(20_000) == [Fraction(k, 7) for k in range(20_000)]
    assert module.echo(1) == 1


def test_what_a_daemons_own_thread_prints(tmp_path: Path) -> None:
    """Between calls, too, it reaches the clients that are attached."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Script(
        """
        import sys, spawny
        module = spawny.run_script(sys.argv[2])
        module.start(sys.argv[1])
        print("started")
        input()
        """,
        str(fifo),
        THREAD,
    ) as client:
        client.until("started")
        fifo.write_text("this")
        assert client.line() == "the thread read this"
        client.tell()
        assert client.end()[0] == 0


def test_without_peer_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell who is at the other end, the directory has to do."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    module: Any = spawny.run_script(ECHO)
    assert module.echo(1) == 1
