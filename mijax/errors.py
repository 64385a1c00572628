"""What is told to the user as a line: exceptions instead of a traceback, and notices."""

import importlib
import shlex
import sys
import warnings

ANOTHER_SERIES = "; --series=UID takes another"  # ends lines, for who has that flag


class UserError(Exception):
    """Something the user can mend; the message says what, where, and what to do next."""


class Preempted(Exception):
    """The machine is about to be taken away: the run is saved, and its command goes on with it."""


class Notice(UserWarning):
    """Something about the input that the user should know and that stops nothing.

    Issued by ``tell``, so that parts that know nothing of the commands can; the commands print it
    as a line, once.
    """


def tell(line):
    """Issues a ``Notice``."""
    warnings.warn(line, Notice, stacklevel=3)


def tell_missing(kind, error, trace):
    """For ``sys.excepthook``: a package that is not installed is one line; all else as ever."""
    if issubclass(kind, ModuleNotFoundError) and error.name:
        print(
            f"mijax: needs {error.name}, which is not installed: in the clone of "
            "mijax, pip install -e '.[train]'",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


def needs(package, extra):
    """Refuses to go on without a package that an extra brings.

    Raises:
      UserError: it is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"needs {error.name}, which is not installed: in the clone of mijax, "
            f"pip install -e '.[{extra}]'"
        ) from error


def lines_of(error):
    """The lines of what an exception says; its type where it says nothing.

    >>> lines_of(TimeoutError())
    ['TimeoutError']
    """
    return str(error).strip().splitlines() or [type(error).__name__]


def counted(number, thing):
    """Some things for a message: 1 case, 2 cases."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def quoted(path):
    """A path for a command in a message, as a shell takes it."""
    return shlex.quote(str(path))


def times(shape):
    """A shape for a message: 3×4."""
    return "×".join(map(str, shape))
