"""A clock that a test sets, in place of the module `time`."""


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    now = 100.0

    def monotonic(self):
        """Return the time, as time.monotonic does."""
        return self.now
