"""A trained run, ready to predict: all it needs is its folder."""

import copy

import numpy as np

from mijax import parallel
from mijax.data import Volume
from mijax.errors import UserError, quoted
from mijax.inference.network import make_network
from mijax.inference.trust import Look, look, read_trust, trust
from mijax.inference.voices import make_voices
from mijax.inference.volumes import segment
from mijax.progress import doing
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import Run, open_run


class Predictor:
    """The network of a run, for label maps of new scans.

        predictor = Predictor("runs/spleen/local_mi-4labelled-seed0")
        labels = predictor(ct, affine)

    Intensities are those of the files that the run was trained on (Hounsfield units, say): the
    preprocessing of the run is applied here. The first call compiles, and the first of another
    slice size; further ones do not.

    Attributes:
      run: ``runs.folder.Run``.
      classes: names; the index is the label value and the first is the background.
      channels: of an image.
      numbered: of the files that it learned from, see ``data.scans.find_scans``.
      network: ``network.Network``.
      step: of the checkpoint.
      weights: of the network, as of that step.
    """

    def __init__(self, run, *, checkpoint="best", devices=None):
        """Reads the weights of a checkpoint.

        Args:
          run: ``Run``, or its folder.
          checkpoint: "best" (by validation DSC), "last", or a step.
          devices: to predict on; all by default.

        Raises:
          UserError: no such run, or it has no such sound checkpoint.
        """
        self.run = run if isinstance(run, Run) else open_run(run)
        with Checkpoints(self.run.checkpoints, read_only=True) as checkpoints:
            self._checkpoints = checkpoints
        self.step = checkpoints.step_of(checkpoint)
        info = self.run.info()
        self.classes, self.channels = tuple(info["classes"]), info["channels"]
        self.numbered = info["numbered"]
        self.network = make_network(self.run.config, classes=len(self.classes), devices=devices)
        self.weights = self._restored()
        self._with_voices = make_voices(self.network, self.run.config.augmentation)

    def at(self, checkpoint):
        """The same for another checkpoint, compiled once for both."""
        other = copy.copy(self)
        other.step = self._checkpoints.step_of(checkpoint)
        other.weights = self.weights if other.step == self.step else other._restored()
        return other

    def __call__(
        self, image, affine, *, probabilities=False, largest_component=False, mirror=False
    ):
        """The label map of an image.

        Args:
          image: (x, y, z), or (x, y, z, c) for c channels.
          affine: (4, 4) from voxel indices to millimetres, RAS+ as in nibabel.
          probabilities: return class probabilities instead of labels.
          largest_component: see ``metrics.largest_components``; of labels alone.
          mirror: average over mirror images, which takes four times as long, or eight with depth.

        Returns:
          (x, y, z) uint8, the index of one of ``classes``; with ``probabilities`` (x, y, z, k)
          float32, which sum to 1 over the k classes.

        Raises:
          UserError: an image or affine that it cannot take, or a run that learned without labels.
        """
        volume = Volume("image", _image(image, self.channels), None, _affine(affine))
        ((labels, probs),) = self.segment(
            [volume],
            stored=False,
            probabilities=probabilities,
            largest_component=largest_component,
            mirror=mirror,
        )
        return probs if probabilities else labels

    def segment(self, volumes, **options):
        """Yields label map and probabilities of each volume, see ``volumes.segment``.

        Several volumes share full batches, and the next is sliced while the device works.

        Raises:
          UserError: if the run learned without labels.
        """
        self.check_segments()
        return segment(self.network, self.weights, volumes, **options)

    def look(self, volumes, *, voices=True, disagreement=False, **options):
        """Yields the ``trust.Look`` of each volume, see ``trust.look``.

        Without ``voices``, which a map of their ``disagreement`` takes, in a fifth of the time.

        Raises:
          UserError: if the run learned without labels.
        """
        if not (voices or disagreement):
            return (Look(*maps) for maps in self.segment(volumes, **options))
        self.check_segments()
        options["disagreement"] = disagreement
        return look(self.network, self.weights, volumes, self._with_voices, **options)

    def trust(self, image, affine):
        """An estimate of the DSC of the label map of an image, by class.

        Takes about five times as long as the label map; the first call compiles.

        Args:
          image, affine: see ``__call__``.

        Returns:
          ``trust.Trust``: estimates with intervals, the signals behind them, and reasons for doubt.

        Raises:
          UserError: as ``__call__``; and if the run has no trust.json.
        """
        known = read_trust(self.run)
        volume = Volume("image", _image(image, self.channels), None, _affine(affine))
        (one,) = self.look([volume], stored=False)
        return trust(known, one, volume.affine, self.classes)

    def check_segments(self):
        """Refuses a run that learned without labels.

        Raises:
          UserError: if this one did.
        """
        if not self.segments:
            raise UserError(
                f"{self.run.folder} learned without labels and segments nothing; fine-tune it with "
                f"--config.init_from={quoted(self.run.folder)}"
            )

    @property
    def segments(self):
        """Whether it learned to segment; else its weights have heads of pre-training."""
        return self.weights["params"].keys() == {"network"}

    def _restored(self):
        with doing(f"restoring the checkpoint of step {self.step}"):
            sharding = parallel.replicated(self.network.mesh)
            return self._checkpoints.restore_network(self.step, sharding)


def _image(image, channels):
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[3] != channels or 0 in image.shape:
        needed = "(x, y, z) or (x, y, z, 1)" if channels == 1 else f"(x, y, z, {channels})"
        raise UserError(f"image of shape {image.shape}; {needed} is needed")
    real = image.dtype.kind in "biuf"
    with np.errstate(over="ignore"):  # what overflows is found by the next line
        values = image.astype(np.float32) if real else image
    if not real or not np.isfinite(values).all():
        raise UserError(f"image of type {image.dtype}: must be real numbers, finite as float32")
    return values


def _affine(affine):
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise UserError("an affine is a regular (4, 4) matrix")
    return affine
