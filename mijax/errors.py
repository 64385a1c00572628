"""The exceptions that are told to the user as a line instead of a traceback."""


class UserError(Exception):
    """Something the user can mend; the message says what, where, and what to do next."""


class Preempted(Exception):
    """The machine is about to be taken away: the run is saved, and its command goes on with it."""
