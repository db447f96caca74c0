"""The file a daemon's interpreter is started with: `python boot.py NAME TOKEN RUNTIME`.

(A zygote's, too: `python boot.py --zygote PROTOCOL DESCRIPTOR`; it forks daemons, see `zygote.py`.)

Loads the kernel under a private name, from its folder, so that its bytecode is cached, `sys.path`
stays the user's, and no module of ours can shadow one of theirs.
"""

import sys

# Python put this folder first on sys.path, unless it was told not to (-P, PYTHONSAFEPATH).
if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]

PACKAGE = "_spawny_kernel"


def load_kernel(folder):
    # By hand: importlib.util would cost every daemon's start several milliseconds. The submodules
    # are then found by the ordinary import system through __path__.
    package = type(sys)(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package
    __import__(PACKAGE + ".daemon")
    return sys.modules[PACKAGE + ".daemon"]


def main():
    if sys.version_info < (3, 6):
        sys.exit("spawny: a daemon needs Python 3.6 or newer; this is " + sys.version.split()[0])
    name, token, runtime = sys.argv[1:4]
    daemon = load_kernel(__file__.rpartition("/")[0])
    # User code gets a __main__ of its own, as empty as an interactive one; ours stays referenced,
    # since a module's globals are cleared when it goes.
    module = type(sys)("__main__")
    module.__builtins__ = sys.modules["builtins"]
    daemon.our_main = sys.modules["__main__"]
    sys.modules["__main__"] = module
    sys.argv = [""]
    daemon.main(name, token, runtime)


if __name__ == "__main__":
    main()
