"""Ctrl-C during a remote call, as a person would press it."""

import signal

import pytest

import spawny
from tests.end_to_end.processes import Script, is_gone, pause
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

CLIENT = """
import sys
import spawny
worker = spawny.run_script('''
import time
log = []
def sleep():
    try:
        print("sleeping", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        log.append("interrupted")
        raise
def spin():
    print("spinning", flush=True)
    while True:
        pass
def talk():
    while True:
        print("talking")
def swallow():
    try:
        print("swallowing", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        return "survived"
def stubborn():
    first = ["stubborn"]
    while True:
        try:
            print(first.pop() if first else "again", flush=True)
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
''', python_exe=sys.argv[1] or None)
print("pid", spawny.daemon(worker).pid, flush=True)
try:
    result = getattr(worker, sys.argv[2])()
except KeyboardInterrupt as error:
    print()  # the call may have been cut in the middle of a line
    print("KeyboardInterrupt, caused by", type(error.__cause__).__name__)
    print("tells of our own code:", "kernel" in str(error.__cause__))
else:
    print("result", result)
print("log", worker.log)
"""


def press_ctrl_c(client: Script) -> None:
    client.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("function", ["sleep", "spin", "talk"])
def test_interrupts_the_call_there_and_here(interpreter: Interpreter, function: str) -> None:
    """In C code that can be interrupted, in pure Python, and in the middle of much output."""
    with Script(CLIENT, str(interpreter.path), function) as client:
        client.until(f"{function[:4]}")
        press_ctrl_c(client)
        assert client.until("Keyb") == "KeyboardInterrupt, caused by RemoteTraceback"
        assert client.line() == "tells of our own code: False"
        assert client.until("log") == f"log {['interrupted'] if function == 'sleep' else []}"
        assert client.end()[0] == 0


def test_an_interrupt_that_comes_while_the_client_is_stopped() -> None:
    """Whichever thread the system would deliver it to: it is not lost, nor late."""
    with Script(
        """
        import spawny
        script = "import time\\ndef sleep():\\n    print('sleeping')\\n    time.sleep(1000)"
        worker = spawny.run_script(script)
        while True:
            try:
                worker.sleep()
            except KeyboardInterrupt:
                print("interrupted")
        """
    ) as client:
        for _ in range(10):
            client.until("sleeping")
            pause(client.process.pid)
            press_ctrl_c(client)
            client.process.send_signal(signal.SIGCONT)
            client.until("interrupted")


def test_a_call_that_swallows_its_interrupt_returns() -> None:
    """What comes of the interrupt is the call's own affair, as it is for a local one."""
    with Script(CLIENT, "", "swallow") as client:
        client.until("swallowing")
        press_ctrl_c(client)
        assert client.until("result") == "result survived"
        assert client.end()[0] == 0


def test_a_second_interrupt_gives_up_waiting() -> None:
    """The call that ignores it runs on in the daemon; the client is free, and so it ends."""
    with Script(CLIENT, "", "stubborn") as client:
        pid = int(client.until("pid").split()[1])
        client.until("stubborn")
        press_ctrl_c(client)
        client.until("again")
        press_ctrl_c(client)
        assert client.until("Keyb").startswith("KeyboardInterrupt")
        assert client.process.poll() is None  # it goes on with its script
        client.process.send_signal(signal.SIGKILL)
    assert is_gone(pid)  # by force, once it has had the time for a clean end


def test_an_interrupt_after_one_that_has_left_our_handler_behind() -> None:
    """As one may that comes while the one before is dealt with: it is dealt with as ever."""
    with Script(
        """
        import signal, spawny
        from spawny.client.interrupt import PassingInterrupts
        script = "import time\\ndef sleep():\\n    print('sleeping')\\n    time.sleep(1000)"
        sleep = spawny.run_script(script).sleep
        PassingInterrupts(lambda: True).__enter__()
        for _ in range(2):
            try:
                sleep()
            except KeyboardInterrupt as error:
                print("interrupted", type(error.__cause__).__name__)
        print("default", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        """
    ) as client:
        for _ in range(2):
            client.until("sleeping")
            press_ctrl_c(client)
            assert client.until("interrupted") == "interrupted RemoteTraceback"
        assert client.line() == "default True"


def test_a_second_interrupt_while_the_first_is_passed_on() -> None:
    """It gives up the wait, but not before the daemon is asked: it is not kept by the call."""
    with Script(
        """
        import signal, spawny
        from spawny.client import channel
        script = "import time\\ndef sleep():\\n    print('sleeping')\\n    time.sleep(1000)"
        sleep = spawny.run_script(script + "\\ndef pid(): pass").sleep
        errand = channel.errand
        def interrupted(*args, **options):
            signal.raise_signal(signal.SIGINT)
            told.append(errand(*args, **options))
            return told[-1]
        told = []
        channel.errand = interrupted
        try:
            sleep()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        channel.errand = errand
        print(len(told), told[0])
        with spawny.timeout(60):
            print(spawny.value(sleep.__name__))
        """
    ) as client:
        client.until("sleeping")
        press_ctrl_c(client)
        client.until("interrupted")
        assert client.line() == "2 interrupted"  # as it came, and when the wait was given up
        assert client.line() == "sleep"
        assert client.end()[0] == 0


def test_interrupt_from_elsewhere() -> None:
    """`Supervisor.interrupt` raises KeyboardInterrupt in what runs, and says if anything did."""
    with Script(
        """
        import spawny
        script = "import time\\ndef sleep():\\n    time.sleep(1000)"
        worker = spawny.run_script(script, name="worker")
        print("ready")
        try:
            print("calling")
            worker.sleep()
        except KeyboardInterrupt:
            print("interrupted", spawny.value(worker.__name__)[:6])
        """
    ) as client:
        client.until("calling")
        supervisor = spawny.connect()
        while not supervisor.interrupt("worker"):
            pass  # the call is on its way
        assert client.until("interrupted") == "interrupted spawny"
        assert not supervisor.interrupt("worker")
        supervisor.stop("worker")


def test_no_interrupt_is_lost() -> None:
    """Whether it meets a call that runs, one that is over, or a large result on its way."""
    with Script(
        """
        import spawny
        script = "data = b'x' * 20_000_000\\ndef big():\\n    print('begun')\\n    return data"
        big = spawny.run_script(script).big
        while True:
            try:
                while True:
                    big()
            except KeyboardInterrupt:
                print("interrupted")
        """
    ) as client:
        for _ in range(25):
            client.until("begun")  # so that the client is where it expects interrupts
            press_ctrl_c(client)
            client.until("interrupted")
