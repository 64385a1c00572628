"""The method that a run's configuration names."""

from mijax import methods
from mijax.errors import UserError


def make_method(config, weights=None):
    """The ``Method`` of a configuration, with a teacher on top where it asks for one.

    Args:
      config: of a run.
      weights: {name: value} in the place of its own hyperparameters, or None.

    Raises:
      UserError: for an unknown method, or values it cannot have.
    """
    hyperparameters = config.method.to_dict() | (weights or {})
    method = methods.build(hyperparameters.pop("name"), **hyperparameters)
    if not config.teacher.decay:
        return method
    try:
        return methods.with_teacher(method, **config.teacher.to_dict())
    except ValueError as error:
        raise UserError(f"config.teacher: {error}") from error
