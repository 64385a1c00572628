"""Training methods: one module each, found by name.

``mijax/methods/NAME.py`` exports ``make(*, hyperparameters) -> Method``. The defaults stand
in its signature and nowhere else; each is a flag, ``--config.method.HYPERPARAMETER=…``.
A new method is a new file.
"""

import importlib
import inspect
import pkgutil

from mijax.errors import UserError
from mijax.methods.method import Aux, Batch, Examination, Method, Output, Rounds, Start, Unlabelled
from mijax.methods.parts import with_teacher

__all__ = [
    "Aux",
    "Batch",
    "Examination",
    "Method",
    "Output",
    "Rounds",
    "Start",
    "Unlabelled",
    "build",
    "defaults",
    "names",
    "teacher_defaults",
    "with_teacher",
]


def names():
    """Names of the methods there are, sorted."""
    modules = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n for n in modules if n not in ("method", "mixing", "parts"))


def build(name, **hyperparameters):
    """The ``Method`` of that name.

    Raises:
      UserError: if there is none, or a hyperparameter has a value it cannot have.
    """
    try:
        return _make(name)(**hyperparameters)
    except ValueError as error:
        raise UserError(f"method {name}: {error}") from error


def defaults(name):
    """Hyperparameters of a method and their defaults, as a dict."""
    return _defaults(_make(name))


def teacher_defaults():
    """Hyperparameters of ``with_teacher`` and their defaults, as a dict."""
    return {k: v for k, v in _defaults(with_teacher).items() if k != "method"}


def _defaults(function):
    return {k: p.default for k, p in inspect.signature(function).parameters.items()}


def _make(name):
    if name not in names():
        raise UserError(f"there is no method {name!r}; the methods are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").make
