"""Range checks of a configuration, before any data are read."""

from mijax.data import check_slice_options
from mijax.data.patches import slice_options
from mijax.errors import UserError, needs
from mijax.inference.network import precision
from mijax.losses.labels import LABEL_LOSSES
from mijax.methods import copy_paste
from mijax.methods.parts import check_least
from mijax.models import NORMS, check_levels, total_stride
from mijax.runs.method import make_method
from mijax.training.build import hypergradient_of
from mijax.training.optimizer import OPTIMIZERS, SCHEDULES
from mijax.training.rounds import round_starts
from mijax.transforms import check_ranges

_LEAST = {
    "seed": 0, "steps": 1, "labelled_batch": 1, "unlabelled_batch": 1, "learning_rate": 0,
    "warmup_steps": 0, "weight_decay": 0, "steps_per_dispatch": 0, "log_every": 1,
    "evaluate_every": 1, "predict_batch": 1,
}  # fmt: skip
_PHASES = "warmup_steps", "method.ramp_steps", "method.pretrain_steps", "teacher.ramp_steps"
_AXES = {2: "two numbers, height and width", 3: "three numbers, depth, height and width"}


def check_config(config):
    """Refuses values that cannot be, or do not go together.

    Raises:
      UserError: for the first of them.
    """
    check_slice_options(**slice_options(config.data.patches))
    check_numbers(config)
    check_augmentation(config)
    if config.method.name == "position_contrast":
        if config.data.patches.dims == 3:
            raise UserError(
                "method position_contrast compares slices: config.data.patches.dims is 2"
            )
        if config.predict_batch < 2:
            raise UserError(
                "method position_contrast tells images apart: config.predict_batch is at least 2"
            )
    method = make_method(config)
    least = method.least_unlabelled if method.unlabelled else 1
    if config.unlabelled_batch < least:
        raise UserError(
            f"method {config.method.name} mixes or compares unlabelled images: "
            f"config.unlabelled_batch is at least {least}, not {config.unlabelled_batch}"
        )
    if config.method.name == "copy_paste":
        copy_paste.check_batches(config.labelled_batch, config.unlabelled_batch)
    if method.rounds and config.data.patches.fit == "whole":
        raise UserError(
            f"method {config.method.name} keeps pseudo-labels of images of one size: "
            "config.data.patches.fit is not whole"
        )
    round_starts(method.rounds, config)
    if config.stream:
        needs("grain", "stream")
    precision(config)
    if config.label_loss not in LABEL_LOSSES:
        raise UserError(
            f"config.label_loss is one of {', '.join(LABEL_LOSSES)}, not {config.label_loss!r}"
        )
    hypergradient_of(config, method)


def remarks(config):
    """Yields a line for each value that will not have the effect that it seems to have."""
    for name in _PHASES:
        part, _, key = name.rpartition(".")
        section = config[part] if part else config
        if part == "teacher" and not section.decay:
            continue
        if (steps := section.get(key, 0)) > config.steps:
            yield f"config.{name} ({steps}) is not over when training ends ({config.steps} steps)"
    if config.steps_per_dispatch > config.log_every:
        yield f"config.steps_per_dispatch is {config.log_every} at most, as config.log_every is"
    augmentation = config.augmentation
    if augmentation.foreground and not augmentation.crop and config.data.patches.fit != "whole":
        yield "config.augmentation.foreground does nothing without config.augmentation.crop"


def check_numbers(config):
    """Refuses numbers of steps, of slices and of the network that cannot be.

    Raises:
      UserError: for the first of them.
    """
    for name, least in _LEAST.items():
        if config[name] < least:
            raise UserError(f"config.{name} is at least {least}, not {config[name]}")
    if config.seed >= 2**31:
        raise UserError(f"config.seed is below 2**31, not {config.seed}")
    for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if config[name] not in choices:
            raise UserError(f"config.{name} is {' or '.join(choices)}, not {config[name]!r}")
    if not 0 <= config.momentum < 1:
        raise UserError(f"config.momentum is at least 0 and below 1, not {config.momentum}")
    widths, dropout = tuple(config.model.widths), config.model.dropout
    if not widths or not all(isinstance(n, int) and n > 0 for n in widths):
        raise UserError(f"config.model.widths {widths}: must be whole numbers above 0")
    if not 0 <= dropout < 1:
        raise UserError(f"config.model.dropout is at least 0 and below 1, not {dropout}")
    rates = tuple(config.model.encoder_dropout)
    if len(rates) not in (0, len(widths)) or not all(0 <= rate < 1 for rate in rates):
        raise UserError(
            f"config.model.encoder_dropout {rates}: must be empty or a rate, at least 0 and below "
            f"1, for each of the {len(widths)} levels"
        )
    if config.model.deep_supervision and config.method.name == "copy_paste":
        raise UserError(
            "config.model.deep_supervision is not for method copy_paste, which shows the network "
            "no labelled image as it is"
        )
    if config.model.deep_supervision and len(widths) < 3:
        raise UserError("config.model.deep_supervision needs three levels of config.model.widths")
    if config.model.norm not in NORMS:
        raise UserError(f"config.model.norm is {' or '.join(NORMS)}, not {config.model.norm!r}")
    try:
        check_levels(
            config.model.strides,
            config.model.kernels,
            depth=len(widths),
            dims=config.data.patches.dims,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model.{error}") from error
    # So that the means in the log are over the same steps after a restart.
    if config.evaluate_every % config.log_every:
        raise UserError(
            f"config.evaluate_every ({config.evaluate_every}) must be a multiple of "
            f"config.log_every ({config.log_every})"
        )


def check_augmentation(config):
    """Refuses sizes that are no multiples of the network's stride, and ranges that are none.

    Raises:
      UserError: for the first of them.
    """
    augmentation, dims = config.augmentation.to_dict(), config.data.patches.dims
    size, crop = tuple(config.data.patches.size), tuple(augmentation["crop"])
    stride = total_stride(config.model.strides, depth=len(config.model.widths), dims=dims)
    for name, shape, lengths in (
        ("data.patches.size", size, [dims]),
        ("augmentation.crop", crop, [0, dims]),
    ):
        whole = all(
            isinstance(n, int) and n > 0 and n % multiple == 0
            for n, multiple in zip(shape, stride, strict=False)
        )
        if len(shape) not in lengths or not whole:
            raise UserError(
                f"config.{name} {shape}: must be {_AXES[dims]}, that are positive multiples of "
                f"{' and '.join(map(str, stride))}"
            )
        if config.model.norm == "instance" and shape == stride:  # one pixel less its mean is 0
            raise UserError(
                f"config.{name} {shape} leaves one pixel at the deepest level, of which "
                "config.model.norm=instance leaves nothing: a larger size, fewer levels or "
                "norm=batch"
            )
    if any(c > n for c, n in zip(crop, size, strict=False)):
        raise UserError(f"config.augmentation.crop {crop} exceeds config.data.patches.size {size}")
    if crop and config.data.patches.fit == "whole":
        raise UserError(
            "with config.data.patches.fit=whole the patches are of config.data.patches.size, and "
            f"config.augmentation.crop is empty, not {crop}"
        )
    if not 0 <= (part := augmentation["foreground"]) <= 1:
        raise UserError(f"config.augmentation.foreground is a part of the crops, not {part}")
    if augmentation["tilt"] and dims == 2:
        raise UserError("config.augmentation.tilt is for config.data.patches.dims=3")
    try:
        check_ranges(**{k: augmentation[k] for k in ("rotation", "shear", "scale", "flip")})
        check_ranges(rotation=augmentation["tilt"], shear=0.0, scale=(1.0, 1.0))
        check_least(
            0,
            **{k: augmentation[k] for k in ("brightness", "contrast", "gamma", "noise", "blur")},
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"config.augmentation: {error}") from error
