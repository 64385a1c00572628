"""The one exception that is told to the user as a line instead of a traceback."""


class UserError(Exception):
    """Something the user can mend; the message says what, where, and what to do next."""
