"""Interpolation Consistency Training (Verma et al., IJCAI 2019), for segmentation."""

import jax

from mijax.losses import squared_error
from mijax.methods import supervised
from mijax.methods.method import Row
from mijax.methods.mixing import next_image
from mijax.methods.parts import check_positive, with_consistency

ROWS = {"ict": Row("ICT", 31)}


def make(*, weight=1.0, alpha=0.2, decay=0.999, ramp_steps=0):
    """L(labelled) + weight · ‖softmax f(M(x, x')) − M(softmax f̄(x), softmax f̄(x'))‖².

    M(a, b) = λ a + (1 − λ) b with one λ ~ Beta(α, α) an image, where the authors' release has
    one a batch; x' is the next image of the batch, all of which are drawn at random. f̄ is the
    teacher, which is evaluated, as the authors do.

    Args:
      weight: of the consistency; the squared distance is summed over classes.
      alpha: α; the paper tries 0.1 … 1 on images of objects, and 0.2 is usual for segmentation.
      decay: of the teacher, see ``with_teacher``.
      ramp_steps: steps over which the weight grows to its value.
    """
    check_positive(alpha=alpha)

    def consistency(network, teacher, images, *, forward, step, key):
        mix_key, student_key, teacher_key = jax.random.split(key, 3)
        shape = images.shape[0], *(1 for _ in images.shape[1:])
        share = jax.random.beta(mix_key, alpha, alpha, shape)

        def mix(x):
            mine = share.astype(x.dtype)
            return mine * x + (1 - mine) * next_image(x)

        [student] = forward(network, mix(images), key=student_key)
        [taught] = forward(teacher, images, key=teacher_key)
        target = mix(jax.nn.softmax(taught.logits))
        return squared_error(jax.nn.softmax(student.logits), target), {}

    method = with_consistency(
        supervised.make(), consistency, weight=weight, decay=decay, ramp_steps=ramp_steps
    )
    return method._replace(least_unlabelled=2)
