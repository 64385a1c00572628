"""The figures of a report: drawn, captioned, written to its folder."""

import base64
import contextlib
import io
import itertools
import logging
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image

from mijax.errors import UserError
from mijax.files import write_atomically
from mijax.progress import out_of_memory
from mijax.report.contours import contours
from mijax.report.evidence import EVIDENCE
from mijax.report.figures import STYLE, case_strips, learning_curves, styles
from mijax.report.growth import caption, find_growth, growth_curve
from mijax.report.pictures import cluster_maps, joint_distributions, marginals

_KINDS = ("pdf", "svg", "png")  # of files; the last is that of the page
_LARGEST = 16_383  # pixels of a side, in WebP
_HEADINGS = {
    "growth": "DSC over labels",
    "cases": "DSC of every case",
    "ranking": "Stability of the ranking",
    "volumes": "Error of the volumes",
    "reliability": "Calibration",
    "curves": "Learning curves",
    "contours_best": "Contours",
    "contours_median": "Contours",
    "contours_worst": "Contours",
    "trust": "Estimated and true DSC",
    "risk_coverage": "Risk and coverage",
    "joint": "Joint distributions",
    "marginals": "Marginals",
    "pretraining_curves": "Learning curves",
    "clusters": "Cluster maps",
}  # of all figures there may be, by the names of their files
_log = logging.getLogger("mijax")
_STRIPS = "DSC of every case{seeds}: one strip a row, one dot a case. The bar is the median."
_JOINED = (
    " A case is at the same height in every strip, and thin lines join it from row to row: lines "
    "that lean one way are what the paired test looks at."
)
_CURVES = (
    "What was logged during training{band}. Loss, its terms and the "
    "mutual information are means over the steps since the last point, on augmented training "
    "slices; the DSC is 3D and of the validation cases."
)
_PRETRAINING_CURVES = (
    "What was logged during pre-training{band}. Loss, its terms and the mutual information are "
    "means over the steps since the last point, on augmented training slices; the values of the "
    "validation are of slices of the validation cases."
)
_CLUSTERS = (
    "Most probable cluster of each pixel, of the first seed and of the first sub-head where there "
    "are several, in {count} slices of validation cases, the further right the further along the "
    "volume. Clusters of like intensity have like colours, from blue, the darkest in these slices, "
    "to red; those of many pixels are further apart."
)
_CONTOURS = (
    "{title} by mean DSC over all rows: {case}. Slices at a quarter, half and three quarters of "
    "the annotated ones, numbered from 1 in the order of the file, cropped around the foreground, "
    "with the sides of the patient (right, left, anterior, posterior, superior, inferior). In "
    "colour: the label map of the row (its first seed); white dashes: the annotation. The DSC is "
    "of the whole volume, over all classes and seeds."
)
_ESTIMATED = (
    " The estimate and its interval are made without the annotation; cases are in their order, the "
    "lowest first."
)
_TRUST = (
    "Mean DSC of {count} cases from the best to the worst, as estimated without the annotation by "
    "the first seed, with the 90 % interval, against the true one. On the grey line they are equal."
)
_RISK = (
    "Mean of 1 − DSC over the cases that are kept, the most trusted first, by the estimate without "
    "the annotation; {count} cases from the best to the worst. Dotted: by the true DSC, which no "
    "estimate can do better than. AURC is the mean over all coverages; the level at the right is "
    "that of all cases, and of any order by chance."
)
_ON_VALIDATION = (
    " The estimate was learned from the DSC of these very cases, as there is no test split, which "
    "flatters it."
)
_JOINTS = (
    "Joint distribution P of the classes of a pixel of f(x) (down) and of its neighbour at "
    "displacement (dy, dx) in T⁻¹ f(T x) (across), in %, over {count} classes in the order "
    "{classes}; validation slices, one seeded T an image, the same in every row. I is the mean "
    "mutual information over the displacements: mass on the diagonal, balanced over the classes, "
    "makes it large. The true labels are paired with themselves."
)
_MARGINALS = (
    "Marginals of P without displacement, in %: how much of each class the network finds in an "
    "image, and in its transformed copy. A class that fades out here has died. "
    "Colours are those of the joint distributions."
)


class Illustration(NamedTuple):
    """A figure of the page: its heading, its caption, the picture and its width in inches."""

    name: str
    heading: str
    caption: str
    webp: bytes
    width: float

    @property
    def source(self):
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode()


class Illustrator:
    """Draws the figures and keeps them, for the page and a folder.

    Attributes:
      figures: list of ``Illustration``, of the runs that segment.
      pretraining: the same of those that learned without labels.
      notes: why some are not there.
    """

    def __init__(self):
        self.figures, self.pretraining, self.notes, self._files = [], [], [], {}

    def write(self, folder):
        """Writes what was drawn; figures of an earlier report that were not drawn again go."""
        folder = Path(folder)
        folder.mkdir(exist_ok=True)
        for name, content in self._files.items():
            write_atomically(folder / name, content)
        for name, kind in itertools.product(_HEADINGS, _KINDS):
            if (file := f"{name}.{kind}") not in self._files:
                (folder / file).unlink(missing_ok=True)

    def draw_growth(self, rows, *, checkpoint):
        """DSC over the number of labels, of those rows that have grown from other runs."""
        with self._drawing("figure growth"):
            found = [find_growth(row, checkpoint=checkpoint) for row in rows]
            grown = [of_row for of_row in zip(rows, found, styles(rows), strict=True) if of_row[1]]
            if grown:
                rows, growths, looks = zip(*grown, strict=True)
                self._add("growth", caption(rows, growths), growth_curve(rows, growths, looks))

    def draw_logs(self, table):
        """Figures of what the runs wrote."""
        with self._drawing("figure cases"):
            several = any(len(row.runs) > 1 for row in table.rows)
            text = _STRIPS.format(seeds=", averaged over seeds" if several else "")
            text += _JOINED if len(table.rows) > 1 else ""
            self._add("cases", text, case_strips(table))
        for name, draw in EVIDENCE.items():
            with self._drawing(f"figure {name}"):
                if drawn := draw(table):
                    self._add(name, *drawn)
        self._draw_curves("curves", _CURVES, table.rows)

    def draw_pretraining_logs(self, rows):
        """The same of runs that learned without labels."""
        self._draw_curves("pretraining_curves", _PRETRAINING_CURVES, rows)

    def draw_clusters(self, rows, *, data_dir):
        """Cluster maps of pre-training; a note where the data cannot be had."""
        from mijax.report.clusters import find_clusters

        with self._drawing("cluster maps"):
            found, notes = find_clusters(rows, data_dir=data_dir)
            self.notes += notes
            if found:
                text = _CLUSTERS.format(count=len(found[0].maps))
                text += " Every row has colours of its own." if len(found) > 1 else ""
                self._add("clusters", text, cluster_maps(found), self.pretraining)

    def draw_predictions(self, rows, **options):
        """Figures that need the networks and the data; a note where these cannot be had.

        Args:
          rows: of ``runs.Row``.
          options: see ``predictions.predict``.

        Returns:
          ``predictions.Predictions``, or None.
        """
        from mijax.report.predictions import predict
        from mijax.report.trust import risk_coverage, scatter, worst_first

        found = None
        with self._drawing("contours and joint distributions"):
            found = predict(rows, **options)
        if found is None:
            return None
        self.notes += found.notes
        estimates, classes = found.estimates, found.classes
        note = _ON_VALIDATION * (rows[0].runs[0].entry["split"] == "validation")
        for chosen in worst_first(found.excerpts, estimates):
            name = f"contours_{chosen.title.split()[0].lower()}"
            with self._drawing(f"figure {name}"):
                text = _CONTOURS.format(title=chosen.title, case=chosen.case)
                text += _ESTIMATED + note if estimates else ""
                self._add(name, text, contours(chosen, rows, classes, estimates=estimates))
        if estimates:
            count = len(next(iter(estimates.values())))
            with self._drawing("figure trust"):
                self._add("trust", _TRUST.format(count=count) + note, scatter(rows, estimates))
            with self._drawing("figure risk_coverage"):
                text = _RISK.format(count=count) + note
                self._add("risk_coverage", text, risk_coverage(rows, estimates))
        with self._drawing("figure joint"):
            text = _JOINTS.format(count=len(classes), classes=", ".join(classes))
            self._add("joint", text, joint_distributions(found.joints, classes))
        with self._drawing("figure marginals"):
            self._add("marginals", _MARGINALS, marginals(found.joints, classes))
        return found

    def _draw_curves(self, name, text, rows):
        several = any(len(row.runs) > 1 for row in rows)
        band = ": the mean over seeds, and their range as a band" if several else ""
        figures = self.pretraining if rows[0].pretraining else self.figures
        with self._drawing(f"figure {name}"):
            if curves := learning_curves(rows):
                self._add(name, text.format(band=band), curves, figures)
            else:
                self.notes.append("No learning curves: no run has a metrics.jsonl.")

    @contextlib.contextmanager
    def _drawing(self, what):
        """In the style of the figures; of what fails there is a note, and the page all the same."""
        try:
            with matplotlib.rc_context(STYLE):
                yield
        except Exception as error:
            reason = error if isinstance(error, UserError | OSError) else out_of_memory(error)
            reason = reason or f"{type(error).__name__}: {error}"
            self.notes.append(f"No {what}: {reason}.")
            _log.warning("the report is without %s: %s", what, reason)

    def _add(self, name, text, figure, figures=None):
        files, figures = {}, self.figures if figures is None else figures
        for kind in _KINDS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind)
            figure.set_layout_engine("none")  # it is laid out, and need not be again
            files[f"{name}.{kind}"] = buffer.getvalue()
        # Of the PNG, which is the last: without loss, and a fifteenth of the bytes where pixels of
        # a scan are large.
        picture, packed = Image.open(buffer).convert("RGB"), io.BytesIO()
        picture.thumbnail((_LARGEST, _LARGEST))  # smaller ones stay as they are
        picture.save(packed, "webp", lossless=True)
        self._files |= files
        heading, width = _HEADINGS[name], figure.get_figwidth()
        heading *= all(heading != one.heading for one in figures)  # once
        figures.append(Illustration(name, heading, text, packed.getvalue(), width))
