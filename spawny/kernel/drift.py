"""What of a daemon is not any more as it was when it was loaded: *drift*.

The one rule: what is told differs for sure. A file that was touched, an interpreter that was
installed again as it is, or bytecode that was written beside a module are no drift.

It is looked for at each attachment and at each ping, on the control thread, and so by `stat` alone
wherever nothing has changed; no user code runs.
"""

from .surroundings import Surroundings

# So many texts are told to people; of more there is the number.
TEXTS_LIMIT = 5
TEXT_LIMIT = 300


class Drift:
    """Of this process. Each of what `found` gives is (kind, name, file, text), its kind one of
    "script", "module", "interpreter" and "environment"."""

    def __init__(self, modules):
        self.modules = modules
        self._surroundings = Surroundings()
        self._has_started = False

    def start(self):
        """What surrounds this process is what it was started with; in a zygote, too, which lets no
        daemon begin once that has changed."""
        self._surroundings.note()
        self._has_started = True

    def begin(self, directories):
        """The definition is about to be carried out, with the caller's source directories."""
        self.modules.watch(directories)
        if not self._has_started:
            self.start()

    def loaded(self, root):
        """It has made this root."""
        self.modules.note_first(root)

    def found(self):
        """What has changed; from the control thread."""
        return self.modules.changed() + self._surroundings.changed()

    def texts(self):
        """The same for people who look at many daemons at once."""
        found = [text[:TEXT_LIMIT] for _, _, _, text in self.found()]
        if len(found) > TEXTS_LIMIT:
            rest = len(found) - TEXTS_LIMIT + 1
            found[TEXTS_LIMIT - 1 :] = ["and %d more" % rest]
        return found
