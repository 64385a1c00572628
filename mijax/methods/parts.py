"""Pieces that several methods are made of."""

import jax
import jax.numpy as jnp

from mijax.errors import UserError
from mijax.losses import squared_error
from mijax.losses.pointwise import wide
from mijax.methods.method import Aux, Rounds
from mijax.transforms import check_ranges, jitter_intensity, sample_view

_UNLABELLED = 255  # the label of a pixel that has none: data.UNLABELLED, without nibabel


def check_least(least, **values):
    """Raises ValueError where a value is below ``least``; one that learns is not looked at."""
    for name, value in values.items():
        if not isinstance(value, jax.Array) and not value >= least:
            raise ValueError(f"{name} is at least {least}, not {value}")


def check_positive(**values):
    """Raises ValueError where a value is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0, not {value}")


def check_decay(decay):
    """Raises ValueError where a moving average could not have that decay."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is between 0 and 1, not {decay}")


def check_threshold(threshold):
    """Raises ValueError where no pseudo-label could have that probability, or any."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is at least 0 and below 1, not {threshold}")


def is_used(weight):
    """Whether a term of that weight is part of the loss; one that learns is above 0."""
    return isinstance(weight, jax.Array) or weight > 0


def with_teacher(
    method,
    *,
    weight=1.0,
    decay=0.999,
    ramp_steps=0,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    noise=0.0,
):
    """A method with a Mean Teacher on top: + weight · ‖softmax f(T x) − T softmax f̄(x)‖².

    The teacher f̄ is the moving average of the student's weights and of its BatchNorm
    statistics, and it is the teacher that is evaluated. Its targets carry no gradient.

    Args:
      method: ``Method``.
      weight: of the consistency; the squared distance is summed over classes. 0 leaves the
        loss of the method as it is and averages its weights.
      decay: of the average, after a warm-up: min(1 − 1/(t + 1), decay) at step t.
      ramp_steps: steps over which the weight grows to its value.
      rotation, shear, scale, flip: of T, see ``sample_affine``.
      brightness, contrast, gamma, noise: of intensity changes of T x, which the student sees;
        see ``jitter_intensity``.

    Returns:
      ``Method``, with ``{"student": the memory of method, "teacher": …}`` for memory.

    Raises:
      ValueError: for values that do not do, and for a method that does not segment.

    Reference: Tarvainen and Valpola, 2017; Perone and Cohen-Adad, 2018.
    """
    if method.examination:
        raise ValueError("a method that learns without labels has no use for a teacher")
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    jitter = {"brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise}
    check_least(0, **jitter)

    def consistency(network, teacher, images, *, forward, step, key):
        view_key, jitter_key, student_key, teacher_key = jax.random.split(key, 4)
        view = sample_view(view_key, images.shape[0], dims=images.ndim - 2, **ranges)
        moved = jitter_intensity(jitter_key, view.apply(images), **jitter)
        [student] = forward(network, moved, key=student_key)
        [taught] = forward(teacher, images, key=teacher_key)
        target = view.apply(jax.nn.softmax(taught.logits))
        mask = view.inside(images.shape[1:-1])
        return squared_error(jax.nn.softmax(student.logits), target, mask=mask), {}

    return with_consistency(method, consistency, weight=weight, decay=decay, ramp_steps=ramp_steps)


def with_consistency(method, consistency, *, weight, decay, ramp_steps, name="teacher_consistency"):
    """A method with a teacher on top: + weight · the consistency of the two.

    Args:
      method, weight, decay, ramp_steps: see ``with_teacher``.
      name: of the consistency in the log.
      consistency: ``(network, teacher, images, *, forward, step, key) -> (scalar, logs)``, of
        the parameters of student and teacher on unlabelled images; those of the teacher carry
        no gradient.

    Returns:
      ``Method``, as of ``with_teacher``.

    Raises:
      ValueError: for values that do not do.
    """
    check_decay(decay)
    check_least(0, weight=weight, ramp_steps=ramp_steps)
    used = is_used(weight)

    def init(key, start):
        heads, memory = method.init(key, start)
        return heads, {"student": memory, "teacher": first_teacher(start)}

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        own_key, consistency_key = jax.random.split(key)
        value, aux = method.loss(
            params,
            memory["student"],
            batch,
            forward=forward,
            label_loss=label_loss,
            step=step,
            key=own_key,
        )
        if not used:
            return value, aux
        distance, logs = consistency(
            params["network"],
            jax.lax.stop_gradient(memory["teacher"]["network"]),
            batch.unlabelled,
            forward=forward,
            step=step,
            key=consistency_key,
        )
        value = value + weight * ramp(step, ramp_steps) * distance
        called = f"outer_{name}" if name in aux.logs else name  # its own method has a teacher too
        return value, Aux(aux.batch_stats, aux.logs | {called: distance} | logs)

    def update(memory, params, batch_stats, step):
        return {
            "student": method.update(memory["student"], params, batch_stats, step),
            "teacher": follow(memory["teacher"], params, batch_stats, step, decay=decay),
        }

    def predictor(params, batch_stats, memory):
        return memory["teacher"]["network"], memory["teacher"]["batch_stats"]

    def refresh(memory, predict, unlabelled):
        return memory | {"student": method.rounds.refresh(memory["student"], predict, unlabelled)}

    def pseudo_labels(memory):
        return method.rounds.pseudo_labels(memory["student"])

    return method._replace(
        loss=loss,
        init=init,
        update=update,
        predictor=predictor,
        unlabelled=method.unlabelled or used,
        rounds=method.rounds and Rounds(method.rounds.count, refresh, pseudo_labels),
    )


def with_deep_supervision(method):
    """A method with the label loss at coarser levels too: + Σₗ 2^(1 − l) · L(logitsₗ, labels).

    Of each labelled image that it shows to the network as it is, where the network has logits of
    level l among its features (``UNet(deep_supervision=True)``). The label of a coarse pixel is
    that of a pixel at its middle: of those beside it the first or the last, as on a chessboard,
    or all would be moved by half a pixel.

    Args:
      method: ``Method`` that learns with labels.

    Returns:
      ``Method``.

    Raises:
      ValueError: for a method that learns from images alone.
      UserError: under tracing, for a method that does not show labelled images as they are, and
        for a network without such logits.

    Reference: Lee et al., AISTATS 2015; with these weights, but not normalised to a sum of 1 as
    there, Isensee et al., Nature Methods 2021.
    """
    if method.examination:
        raise ValueError("a method that learns without labels has no use for deep supervision")

    def loss(params, memory, batch, *, forward, label_loss, **how):
        shown = []

        def noted(network, *images, **options):
            outputs = forward(network, *images, **options)
            shown.extend(o for x, o in zip(images, outputs, strict=True) if x is batch.image)
            return outputs

        value, aux = method.loss(params, memory, batch, forward=noted, label_loss=label_loss, **how)
        terms = [_deep(output, batch.label, label_loss) for output in shown]
        if not terms:
            raise UserError(
                "deep supervision is of labelled images as they are, and the method shows others"
            )
        return value + sum(terms), Aux(aux.batch_stats, aux.logs | {"deep_supervision": sum(terms)})

    return method._replace(loss=loss)


def _deep(output, label, label_loss):
    found = {name: x for name, x in output.features.items() if name.startswith("logits")}
    if not found:
        raise UserError("deep supervision is of a network with logits of several levels")
    total = 0.0
    for name, logits in found.items():
        size = logits.shape[1:-1]
        steps = [n // m for n, m in zip(label.shape[1:], size, strict=True)]
        first, last = (label[:, *(slice((n - 1 + i) // 2, None, n) for n in steps)] for i in (0, 1))
        middle = jnp.where(jnp.indices(size).sum(0) % 2, last, first)
        total += 0.5 ** (int(name.removeprefix("logits")) - 1) * label_loss(logits, middle)
    return total


def first_teacher(start):
    """A teacher to begin with: the network and its statistics of ``Start``.

    A copy: shared buffers could not be donated with the student's.
    """
    teacher = {"network": start.network, "batch_stats": start.batch_stats}
    return jax.tree.map(jnp.copy, teacher)


def follow(teacher, params, batch_stats, step, *, decay):
    """The teacher after a step, a moving average of decay min(1 − 1/(step + 1), decay).

    In float32 or wider; each array of the teacher keeps its type.
    """
    rate = jnp.minimum(1 - 1 / (step + 1), decay)
    student = {"network": params["network"], "batch_stats": batch_stats}

    def average(old, new):
        return (rate * wide(old) + (1 - rate) * wide(new)).astype(old.dtype)

    return jax.tree.map(average, teacher, student)


def class_entropy(labels, classes):
    """Entropy of the classes of a batch's labels, in nats; those of pixels without one don't count.

    Where classes were not drawn, what may be one of them counts as background.

    Mutual information between two predictions of images like these is at most about this if they
    are right; by up to an eighth more where a T takes borders without structures out of the frame.
    What is above it stands for classes that are predicted to be larger than they are.
    """
    labels = jnp.where((labels >= classes) & (labels != _UNLABELLED), 0, labels)
    counts = jnp.sum(jax.nn.one_hot(labels, classes), axis=range(labels.ndim))
    return jnp.sum(jax.scipy.special.entr(counts / jnp.maximum(jnp.sum(counts), 1)))


def ramp(step, length):
    """Sigmoid ramp-up from exp(−5) to 1 over ``length`` steps: exp(−5 (1 − t)²); 1 if 0.

    Reference: Laine and Aila, ICLR 2017.
    """
    if not length:
        return 1.0
    return jnp.exp(-5.0 * (1.0 - jnp.clip(step / length, 0.0, 1.0)) ** 2)
