"""Mean Teacher for segmentation (Perone and Cohen-Adad, 2018; Tarvainen and Valpola, 2017)."""

from mijax.methods import supervised
from mijax.methods.method import Row
from mijax.methods.parts import with_teacher

ROWS = {"mean_teacher": Row("Mean Teacher", 11, table1=True)}


def make(
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
    """L(labelled) + weight · ‖softmax f(T x) − T softmax f̄(x)‖², f̄ the teacher.

    Supervised training with a teacher on top; hyperparameters as of ``parts.with_teacher``.
    """
    return with_teacher(
        supervised.make(),
        weight=weight,
        decay=decay,
        ramp_steps=ramp_steps,
        rotation=rotation,
        shear=shear,
        scale=scale,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
        gamma=gamma,
        noise=noise,
    )
