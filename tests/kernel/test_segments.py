"""Lender and borrower together, over a fork, under every interpreter."""

import os
import subprocess
import textwrap
from pathlib import Path

from spawny import kernel
from spawny.kernel.segments import Borrower
from tests.interpreters import Interpreter
from tests.kernel.borrowing import given_back, passed, retired


def test_a_fork_makes_it_private() -> None:
    """What either process writes stays with it; the parent has it forgotten, the child tells
    nothing."""
    borrower = Borrower(lambda: None)
    passed(borrower)
    view = borrower.borrow(1)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        is_well = view[:4] == b"lent"
        view[:4] = b"mine"
        del view
        os._exit(0 if is_well and not given_back(borrower) and not borrower.retired else 1)
    os.close(read)
    view[:4] = b"ours"
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    assert view[:4] == b"ours"
    del view
    assert retired(borrower) == [1]
    assert not given_back(borrower)


SCRIPT = """
import importlib.util, os, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "k", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
sys.modules["k"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["k"])
from k import borrower as borrowing, buffers, segments
from k.buffers import Parts

def lend(lender):
    parts = Parts()
    loan = lender.take(300000, parts)
    parts.add_loan(loan)
    parts.goes_over("connection")
    return loan

def given_back(borrower):
    borrowing.settle()
    return list(borrower.given_back)

lender = segments.Lender()
borrower = segments.Borrower(lambda: None)
loan = lend(lender)
loan.memory[:4] = b"lent"
borrower.add(loan.number, os.dup(loan.descriptors[0]), loan.size)
view = borrower.borrow(1)[:4]
assert view == b"lent" and not given_back(borrower)
if not os.fork():
    view[:4] = b"mine"
    os._exit(0)
os.wait()
assert view == b"lent"
view[:4] = b"ours"
assert loan.memory[:4] == b"lent"
del view
if sys.implementation.name == "cpython":
    assert not given_back(borrower) and list(borrower.retired) == [1]
    lender.forget(1)
    loan = lend(lender)
    borrower.add(loan.number, os.dup(loan.descriptors[0]), loan.size)
    view = borrower.borrow(2)
    view = view[1:2]
    assert not given_back(borrower)
    del view
    assert given_back(borrower) == [(2, 1)]
    lender.returned([(2, 1)])
    assert lend(lender) is loan
else:
    assert not buffers.can_borrow()
print("well")
"""


def test_under_every_interpreter(interpreter: Interpreter) -> None:
    """Lent, borrowed, made private by a fork, and given back exactly when nothing has it; where
    that cannot be known, nothing is borrowed."""
    done = subprocess.run(
        [interpreter.path, "-c", textwrap.dedent(SCRIPT), str(Path(kernel.__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "well\n", done.stderr
