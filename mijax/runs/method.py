"""The method that a run's configuration names."""

from mijax import methods
from mijax.data.patches import voxel_size
from mijax.errors import UserError


def make_method(config, weights=None):
    """The ``Method`` of a configuration, with deep supervision and a teacher on top where it asks
    for them.

    Args:
      config: of a run.
      weights: {name: value} in the place of its own hyperparameters, or None.

    Raises:
      UserError: for an unknown method, or values it cannot have.
    """
    hyperparameters = config.method.to_dict() | (weights or {})
    name = hyperparameters.pop("name")
    if others := hyperparameters.keys() - methods.defaults(name).keys():
        raise UserError(
            f"config.method is not that of {name}, which has no {min(others)}; a method is named "
            f"with the file, --config FILE:{name}"
        )
    voxel = voxel_size(config.data.patches)
    if voxel and hyperparameters.get("spacing") == ():
        hyperparameters["spacing"] = voxel
    method = methods.build(name, **hyperparameters)
    try:
        part = "model.deep_supervision"
        if config.model.deep_supervision:
            method = methods.with_deep_supervision(method)
        part = "teacher"
        if config.teacher.decay:
            method = methods.with_teacher(method, **config.teacher.to_dict())
    except ValueError as error:
        raise UserError(f"config.{part}: {error}") from error
    return method
