"""What pickles name, where the other end has another version of a library; the same file on both.

Pickles of numpy 2 name `numpy._core`, which was `numpy.core` before, and attributes of the package
that were never modules. Neither end can know what the other one has, so whoever loads looks for it.
"""

import sys
from importlib.machinery import PathFinder

# Each was, or will be, the other; whatever is below them is the same.
_MOVED = (("numpy._core", "numpy.core"), ("numpy.core", "numpy._core"))

_NAT = "pandas._libs.tslibs.nattype"

_RENAMED = {
    ("numpy", "bool"): ("numpy", "bool_"),  # which is so called since 2.0
    ("numpy", "chararray"): ("numpy.char", "chararray"),
    (_NAT, "_nat_unpickle"): (_NAT, "__nat_unpickle"),
    (_NAT, "__nat_unpickle"): (_NAT, "_nat_unpickle"),
}

NOWHERE = object()


def find_moved(find_class, module, name):
    """What is here what `find_class` (that of an unpickler) has not found; else NOWHERE."""
    if not module.startswith(("numpy", "pandas")):
        return NOWHERE
    places = [_RENAMED.get((module, name), (module, name))]
    for before, after in _MOVED:
        if module == before or module.startswith(before + "."):
            places.append((after + module[len(before) :], name))
    # `numpy.rec.recarray`: the class says that of itself where `numpy.rec` is no module.
    package, _, attribute = module.rpartition(".")
    if package:
        places.append((package, attribute + "." + name))
    for place in places:
        try:
            return find_class(*place)
        except (ImportError, AttributeError):
            continue
    return NOWHERE


def packages_in(pickled):
    """The names of packages that a pickle seems to need something of; nothing of it is loaded."""
    import pickletools  # 5 ms, so only where something went wrong

    found = set()
    try:
        for _, text, _ in pickletools.genops(bytes(pickled)):
            if type(text) is str:
                found.add(text.partition(" ")[0].partition(".")[0])
    except Exception:  # what is cut short or garbage
        pass
    return {name for name in found if name.isidentifier() and _is_package(name)}


def _is_package(name):
    try:
        return name in sys.modules or PathFinder.find_spec(name) is not None
    except Exception:  # whatever a broken installation raises
        return False


def versions(packages):
    """{name: version, or None where there is no such package}, of those that have versions."""
    found = {}
    for package in packages:
        loaded = sys.modules.get(package)
        version = getattr(loaded, "__version__", None)
        if loaded is None:
            found[package] = _installed_version(package)  # for it has been looked for
        elif type(version) is str:
            found[package] = version
    return found


def _installed_version(package):
    """That of one which does not load; None where there is none, or none that can be told."""
    try:
        from importlib import metadata  # since Python 3.8

        return metadata.version(package)
    except Exception:  # whatever a broken installation raises
        return None


def compare(there):
    """What is said of the versions of packages at both ends; "" where there is nothing to say."""
    here = versions(there)
    common = sorted(name for name, version in here.items() if version != there[name])
    if not common:
        return ""
    texts = [
        ", ".join("%s %s" % (name, found[name]) if found[name] else "no " + name for name in common)
        for found in (there, here)
    ]
    return " (there: %s; here: %s)" % tuple(texts)
