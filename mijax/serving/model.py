"""The one run that is served: what it can do, and its label map of one scan."""

import itertools
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

from mijax.data.formats.dicom.codes import segments_of
from mijax.data.formats.dicom.segmentation import write_segmentation
from mijax.data.formats.imagewriter import write_image
from mijax.data.scans import Scan
from mijax.errors import UserError, needs
from mijax.inference.trust import Look, caveats, trust_or_why_not
from mijax.inference.trust import trust as trust_of

LABELS, SEG = "labels.nii.gz", "labels_seg.dcm"
_OURS = ("client_id", "device", "model", "result_compress", "result_dtype", "result_extension")
_NAME = 256  # characters of the name of a client
_SHOWN = 16  # names of parameters that nobody knows


class Options(NamedTuple):
    """What a client asks of a prediction, its own name, and those that nobody knows."""

    largest_component: bool = False
    mirror: bool = False
    trust: bool = True
    client: str = ""
    ignored: tuple[str, ...] = ()


class Model:
    """A ``Predictor`` with a name, and with what its run knows of trust and of DICOM codes."""

    def __init__(self, predictor, *, name, trust=True, codes=None):
        """Reads trust.json of the run, if it is there.

        Args:
          predictor: ``inference.Predictor``.
          name: that clients know it by.
          trust: whether to estimate DSCs; False takes a fifth of the time.
          codes: file, see ``dicom.codes.segments_of``.

        Raises:
          UserError: the run learned without labels, or a file of codes that is none.
        """
        predictor.check_segments()
        self.predictor, self.name = predictor, name
        off = None, "switched off by --notrust"
        self.known, self.no_trust = trust_or_why_not(predictor.run) if trust else off
        try:
            self.segments, self.no_segments = segments_of(predictor.classes, codes), ""
        except UserError as error:
            if codes:
                raise
            self.segments, self.no_segments = (), str(error)

    @property
    def labels(self) -> dict:
        """Value of each class but the background, by its name."""
        return {name: value for value, name in enumerate(self.predictor.classes) if value}

    def info(self) -> dict:
        """What MONAI Label tells of a model; ``config`` has the options and their defaults."""
        options = {"largest_component": False, "mirror": False}
        if self.known:
            options["trust"] = True
        return {
            "type": "segmentation",
            "labels": self.labels,
            "dimension": 3,  # of a scan, whatever the network sees of it
            "description": f"{self.predictor.run.config.method.name}, checkpoint of step "
            f"{self.predictor.step}",
            "config": options,
        }

    def options(self, text: str) -> Options:
        """The options in the form field ``params``, JSON.

        Raises:
          UserError: no JSON object, or a value that is none for its name.
        """
        try:
            given = json.loads(text or "{}")
        except (ValueError, RecursionError):
            raise UserError("params: no JSON") from None
        if not isinstance(given, dict):
            raise UserError("params: a JSON object is needed")
        known = ("largest_component", "mirror", "trust")
        for name in known:
            if not isinstance(given.get(name, False), bool):
                raise UserError(f"params: {name} is true or false")
        if given.get("trust") and not self.known:
            raise UserError("params: this server has no estimates of trust")
        ignored = [ascii(name[:80])[1:-1] for name in given if name not in (*known, *_OURS)]
        chosen = {"trust": bool(self.known)} | {n: given[n] for n in known if n in given}
        client = str(given.get("client_id", ""))[:_NAME]
        return Options(**chosen, client=client, ignored=tuple(ignored[:_SHOWN]))

    def predict(self, scan: Scan, folder: Path, options: Options, *, read, dicom_seg=False):
        """Writes the label map of a scan to ``folder``, as ``mijax.predict`` does.

        Args:
          scan: of ``scans.open_scan``.
          folder: an empty one, for ``LABELS``, or with ``dicom_seg`` for ``SEG``.
          options: what was asked for.
          read: ``reader.Reader.read``.
          dicom_seg: whether a DICOM segmentation is wanted.

        Returns:
          What there is to say of it, a dict of what JSON has.

        Raises:
          UserError: voxels that are damaged or not finite, or of another number of channels.
        """
        times = [time.perf_counter()]
        volume, notices = read(scan, folder)
        times.append(time.perf_counter())
        (one,) = self.predictor.look(
            [volume],
            stored=False,
            voices=options.trust,
            largest_component=options.largest_component,
            mirror=options.mirror,
        )
        times.append(time.perf_counter())
        if dicom_seg:
            write_segmentation(folder / SEG, one.labels, scan.stack, self.segments)
        else:
            write_image(folder / LABELS, one.labels, reference=scan.reference)
        times.append(time.perf_counter())
        pre, infer, write = (b - a for a, b in itertools.pairwise(times))
        took = {"pre": pre, "infer": infer, "write": write, "total": times[-1] - times[0]}
        return {
            "model": self.name,
            "step": self.predictor.step,
            "label_names": self.labels,
            "latencies": {name: round(seconds, 2) for name, seconds in took.items()},
            "notices": notices,
            "ignored": list(options.ignored),
        } | ({"trust": self._trust(one, volume.affine)} if options.trust else {})

    def check_dicom_seg(self, scan: Scan) -> None:
        """Refuses a DICOM segmentation that cannot be.

        Raises:
          UserError: of another format, without codes of the classes, or without the package.
        """
        if not scan.stack:
            raise UserError("dicom_seg is of DICOM series, and this scan is of another format")
        if self.no_segments:
            raise UserError(self.no_segments)
        needs("highdicom", "dicom")

    def _trust(self, one: Look, affine) -> dict:
        found = trust_of(self.known, one, affine, self.predictor.classes)

        def shown(estimate):
            return {key: _number(value) for key, value in estimate._asdict().items()}

        return {
            "mean": shown(found.mean),
            "classes": {
                name: shown(estimate)
                | {"volume_ml": _number(found.signals[name]["volume_ml"]), "why": found.why[name]}
                for name, estimate in found.classes.items()
            },
            "caveats": list(caveats(self.known, self.predictor.step)),
        }


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
