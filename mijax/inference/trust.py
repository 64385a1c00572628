"""How far a prediction can be trusted: an estimate of its DSC by class, from the image alone.

The signal is the agreement of a prediction with those for transformed copies of its image (see
``voices`` and ``signals``). What an agreement is worth is learned from the validation cases
(``calibration``), and kept as trust.json in the run folder, with the volumes of the structures
in the annotated cases, so that a prediction needs no other case.
"""

from typing import NamedTuple

import numpy as np

from mijax.data import native_slice, to_native
from mijax.errors import UserError, quoted
from mijax.files import read_json
from mijax.inference.calibration import (
    LEAST,
    UNKNOWN,
    Calibration,
    Estimate,
    calibrate,
    estimates,
    logit,
)
from mijax.inference.scores import case_dsc, is_whole, shown_classes
from mijax.inference.signals import shape, signals
from mijax.inference.voices import heard
from mijax.inference.volumes import mirrored, on_native_grid, on_slices
from mijax.metrics import largest_components

FILE = "trust.json"
SIGNAL = "agreement"  # that the estimate is made of, chosen on validation cases
_FEW = 6  # patients in the validation split
_STRANGE = 3.0  # standard deviations
_LEAST_STD = 0.1  # of the logarithm of a volume


class Look(NamedTuple):
    """A prediction and what its voices said.

    Attributes:
      labels: (x, y, z) uint8.
      probs: (x, y, z, k) float32, or None.
      disagreement: (x, y, z) float32 in [0, 1], or None.
      sums: (k, …), see ``signals.slice_sums``; None where no voices were heard.
    """

    labels: np.ndarray
    probs: np.ndarray | None = None
    disagreement: np.ndarray | None = None
    sums: np.ndarray | None = None


class Trust(NamedTuple):
    """Estimates for a case.

    Attributes:
      mean: ``Estimate`` of the mean DSC over the foreground classes.
      classes: ``{class: Estimate}``.
      signals: ``{class: {signal: value}}``, NaN where the class was not found.
      why: ``{class: reasons}`` not to trust it, each a few words; empty of an ordinary class.
    """

    mean: Estimate
    classes: dict
    signals: dict
    why: dict


def look(
    network,
    weights,
    volumes,
    with_voices,
    *,
    stored=True,
    probabilities=False,
    disagreement=False,
    largest_component=False,
    mirror=False,
):
    """Yields the ``Look`` of each volume: as ``volumes.segment``, with voices beside.

    Labels are those of ``segment``, voxel by voxel. What the voices say is of the label map before
    ``largest_component``.

    Args:
      network, weights, volumes: see ``volumes.segment``.
      with_voices: of ``voices.make_voices``.
      disagreement: whether its map is wanted.
      stored, probabilities, largest_component, mirror: see ``volumes.segment``.
    """
    predict = with_voices(mirrored(network.predict) if mirror else network.predict)
    for slices, grid in on_slices(network, predict, weights, volumes, stored=stored):
        slices = slices if network.patch is None else map(heard, slices)
        sums, doubt = [], np.empty(grid.shape, np.float32) if disagreement else None
        probs = _listened(slices, grid, sums, doubt)
        labels, soft = on_native_grid(probs, grid, keep=np.asarray if probabilities else None)
        labels = largest_components(labels) if largest_component else labels
        yield Look(labels, soft, doubt, sum(sums))


def _listened(slices, grid, sums, doubt):
    """Yields the probabilities of slices, and keeps what their voices said."""
    for place, one in enumerate(slices):
        sums.append(np.asarray(one["sums"][0], np.float64))
        if doubt is not None:
            sides = np.asarray(one["disagreement"])
            sides = np.concatenate([1 - sides, sides], -1)  # none where a slice was cut away
            doubt[native_slice(grid, place)] = to_native(sides, grid)[..., 1]
        yield one["probs"]


def learn(looks, volumes, annotated, classes, patients):
    """What trust.json has of a checkpoint, from predictions of annotated volumes.

    Args:
      looks: iterable of ``Look``, of the volumes.
      volumes: ``data.Volume`` of validation cases, with labels.
      annotated: ``signals.shape`` of other cases that are annotated whole, of the training.
      classes: names, background first.
      patients: ``{case: patient}`` of the volumes.

    Returns:
      A dict of what JSON has: ``calibration``, or None where cases are too few; ``cases``, the
      number of validation cases; ``seen``, the classes that one of them shows; ``annotated``.
    """
    names, signal, dsc, shapes = classes[1:], [], [], list(annotated)
    for one, volume in zip(looks, volumes, strict=True):
        signal.append(signals(one.sums)[SIGNAL])
        dsc.append(case_dsc(one.labels, volume, classes))
        if is_whole(volume):
            shapes.append(shape(volume.label, volume.affine, classes=len(classes)))
    volume_ml = np.array([s["volume_ml"] for s in shapes]).reshape(-1, len(names))
    seen = shown_classes((volume.label for volume in volumes), classes)
    shown = [name in seen for name in names]
    calibration = calibrate(
        np.array(signal),
        np.where(shown, np.array(dsc), np.nan),
        [patients[volume.name] for volume in volumes],
    )
    return {
        "cases": len(signal),
        "seen": seen,
        "calibration": calibration and calibration._asdict(),
        "annotated": {
            name: {"cases": len(found), "shown": int((found > 0).sum()), **_logarithms(found)}
            for name, found in zip(names, volume_ml.T, strict=True)
        },
    }


def read_trust(run):
    """What trust.json of a run has: ``learn``'s dict, the ``step`` and the ``data`` it is of.

    Raises:
      UserError: if it is not there, or damaged.
    """
    path = run.folder / FILE
    again = f"python -m mijax.evaluate --workdir {quoted(run.folder)} writes it"
    if not path.exists():
        raise UserError(f"{run.folder} has no {FILE}; {again}")
    found = read_json(path)
    try:
        calibration = found["calibration"]
        found["calibration"] = calibration and Calibration(**calibration)
        names = run.info()["classes"][1:]
        if calibration:
            found["calibration"].check(len(names))
        if list(found["annotated"]) != names:
            raise ValueError("other classes than the run")
        keys = ("data", "step", "cases", "seen", "calibration", "annotated")
        return {key: found[key] for key in keys}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and {again}") from error


def trust_or_why_not(run):
    """``read_trust`` and "", or None and why there is none."""
    try:
        return read_trust(run), ""
    except UserError as error:
        return None, str(error)


def trust(known, one, affine, classes):
    """The ``Trust`` of a prediction.

    Args:
      known: of ``read_trust``.
      one: ``Look``.
      affine: (4, 4), voxels to millimetres.
      classes: names, background first.
    """
    names, measured = (
        classes[1:],
        signals(one.sums) | shape(one.labels, affine, classes=len(classes)),
    )
    found = measured["volume_ml"] > 0
    signal = np.where(found, measured[SIGNAL], np.nan)
    of_classes, mean = estimates(known["calibration"], signal)
    why = {name: [] for name in names}
    for i, name in enumerate(names):
        annotated = known["annotated"][name]
        if of_classes[i] is None:
            # Right where the case has none, for which annotated cases speak (rule of succession).
            absent = annotated["cases"] - annotated["shown"]
            of_classes[i] = Estimate((absent + 1) / (annotated["cases"] + 2), *UNKNOWN)
            why[name].append("not found" + " in the scan, as in some annotated ones" * (absent > 0))
            continue
        if name not in known["seen"]:
            why[name].append("no validation case shows it")
        if _strange_agreement(known["calibration"], signal[i]):
            why[name].append("agrees less than validation cases do")
        if _strange_volume(annotated, measured["volume_ml"][i]):
            why[name].append("volume unlike those annotated")
    # The mean is that of the classes found, and of each of the others anything from 0 to 1.
    missing = sum(np.isnan(signal)) / len(names)
    low, high = (mean.low, mean.high) if mean else UNKNOWN
    mean = Estimate(
        float(np.mean([estimate.dsc for estimate in of_classes])),
        (1 - missing) * low,
        (1 - missing) * high + missing,
    )
    return Trust(
        mean,
        dict(zip(names, of_classes, strict=True)),
        {n: {s: float(v[i]) for s, v in measured.items()} for i, n in enumerate(names)},
        why,
    )


def caveats(known, step):
    """Yields lines about what the estimates cannot say, for predictions of that checkpoint."""
    calibration = known["calibration"]
    if calibration is None:
        yield (
            "estimates are not calibrated, and all intervals are 0 to 1: that takes "
            f"{LEAST} validation patients in whom a class is found, and there are fewer"
        )
    elif calibration.patients < _FEW:
        yield f"intervals are wide: they are from {calibration.patients} patients for validation"
    if known["step"] != step:
        yield f"learned with the checkpoint of step {known['step']}, and this is that of {step}"


def _logarithms(volume_ml):
    """Mean and standard deviation of the logarithms of the volumes that are there, or None."""
    logs = np.log(volume_ml[volume_ml > 0])
    if len(logs) < LEAST:
        return {"log_volume": None}
    return {"log_volume": [float(logs.mean()), float(max(logs.std(ddof=1), _LEAST_STD))]}


def _strange_volume(annotated, volume_ml):
    if annotated["log_volume"] is None:
        return False
    mean, std = annotated["log_volume"]
    return bool(abs(np.log(volume_ml) - mean) > _STRANGE * std)


def _strange_agreement(calibration, signal):
    return bool(calibration and logit(signal) < calibration.mean - _STRANGE * calibration.std)
