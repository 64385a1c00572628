"""Training methods: one module each, found by name.

``mijax/methods/NAME.py`` exports ``make(*, hyperparameters) -> Method``. The defaults stand
in its signature and nowhere else; each is a flag, ``--config.method.HYPERPARAMETER=…``. How its
rows and its logs are called in reports stands there as well, in ``ROWS`` and ``QUANTITIES``. A
new method is a new file, here or anywhere on the path of Python: ``package.module`` names that.
``docs/methods.md`` has an example.
"""

import importlib
import inspect
import pkgutil
import re

from mijax.errors import UserError
from mijax.methods.method import (
    FULL,
    PARTIAL,
    Aux,
    Batch,
    Examination,
    Method,
    Output,
    Quantity,
    Rounds,
    Row,
    Start,
    Unlabelled,
)
from mijax.methods.parts import with_deep_supervision, with_teacher

__all__ = [
    "FULL",
    "PARTIAL",
    "Aux",
    "Batch",
    "Examination",
    "Method",
    "Output",
    "Quantity",
    "Rounds",
    "Row",
    "Start",
    "Unlabelled",
    "build",
    "defaults",
    "find",
    "names",
    "quantities",
    "rows",
    "teacher_defaults",
    "with_deep_supervision",
    "with_teacher",
]


def names():
    """Names of the methods that come with mijax, sorted."""
    modules = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n for n in modules if n not in ("method", "mixing", "parts"))


def build(name, **hyperparameters):
    """The ``Method`` of that name.

    Raises:
      UserError: if there is none, or it has no such hyperparameter, or not of that value.
    """
    known = defaults(name)
    for key in hyperparameters:
        if key not in known:
            raise UserError(f"method {name} has no {key}, but {', '.join(known) or 'none'}")
    try:
        return find(name).make(**hyperparameters)
    except ValueError as error:
        raise UserError(f"method {name}: {error}") from error


def defaults(name):
    """Hyperparameters of a method and their defaults, as a dict."""
    return _defaults(find(name).make)


def teacher_defaults():
    """Hyperparameters of ``with_teacher`` and their defaults, as a dict."""
    return {k: v for k, v in _defaults(with_teacher).items() if k != "method"}


def rows(name):
    """``{key: Row}`` of a method; none of one that is not there, as of a run of another place."""
    return _declared(name, "ROWS")


def quantities(name):
    """``{name: Quantity}`` of what a method logs and measures; none of one that is not there."""
    return _declared(name, "QUANTITIES")


def find(name):
    """The module of a method: of its name here, or, of a name with a dot, of that name anywhere.

    Raises:
      UserError: if there is none.
    """
    try:
        if "." not in name and name not in names():
            known = f"the methods are {', '.join(names())}, or a module, PACKAGE.MODULE"
            row = any(name in rows(method) for method in names())
            raise ImportError(known + f"; {name} is one of the --rows of mijax.table1" * row)
        if not re.fullmatch(r"\w+(\.\w+)*", name):
            raise ImportError("a module is named PACKAGE.MODULE, such as lab.pi_model")
        module = importlib.import_module(name if "." in name else f"{__name__}.{name}")
        if not hasattr(module, "make"):
            raise ImportError(f"{module.__file__} has no function make")
    except ImportError as error:
        raise UserError(f"there is no method {name!r}: {error}") from error
    return module


def _defaults(function):
    return {k: p.default for k, p in inspect.signature(function).parameters.items()}


def _declared(name, what):
    try:
        return getattr(find(name), what, {})
    except UserError:
        return {}
