"""The floor: the right to run user code, which one thread has at a time.

It belongs to the main thread. While a call there waits for a callback, whose code may depend on
other calls, the main thread lends the floor to a relief for each of these, and gets it back when
that call has ended, or waits for a callback of its own. So nothing that one client waits for can
keep another from getting on, and user code still runs on the main thread, but for calls that come
in the middle of another one.
"""

import threading

# Threads that have nothing to do are kept for the next time, but not more than this.
SPARE_RELIEFS = 4


class Floor:
    """Lent by the main thread; a thread that has it calls these."""

    def __init__(self):
        self._spare = []
        self._is_lent = False
        self._back = None  # released when the floor is given back

    def lend(self, job, *args):
        """On the main thread: have a relief do `job(*args)`; returns once it has ended or waits."""
        relief = self._spare.pop() if self._spare else Relief(self)
        relief.job = job, args
        self.resume(relief)

    def resume(self, relief):
        """On the main thread: let a relief that waits go on; returns as `lend` does.

        What a signal handler of user code raises meanwhile is raised after that.
        """
        raised = None
        self._is_lent, self._back = True, _baton()
        relief.go.release()
        while self._is_lent:
            try:
                self._back.acquire()
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised

    def give_back(self, relief, has_ended=False):
        """On a relief: the floor is the main thread's again; False if the relief may end."""
        is_spare = has_ended and len(self._spare) < SPARE_RELIEFS
        if is_spare:
            self._spare.append(relief)
        back, self._is_lent = self._back, False
        back.release()
        return is_spare or not has_ended


class Relief(threading.Thread):
    """A thread that has the floor from `go` until it gives it back."""

    def __init__(self, floor):
        super().__init__(name="spawny-relief", daemon=True)
        self._floor = floor
        self.go = _baton()
        self.job = None
        self.start()

    def run(self):
        while True:
            self.go.acquire()
            (job, args), self.job = self.job, None
            try:
                job(*args)
            finally:
                del job, args  # or they would live until the next job
                goes_on = self._floor.give_back(self, has_ended=True)
            if not goes_on:
                return

    def wait(self):
        """On this thread, in the middle of a job: let others go on until resumed."""
        self._floor.give_back(self)
        self.go.acquire()


def _baton():
    """A lock that one thread takes and another gives: taken, to begin with."""
    baton = threading.Lock()
    baton.acquire()
    return baton
