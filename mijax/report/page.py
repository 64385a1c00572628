"""The page of a report: figures drawn, captioned and put into one HTML file."""

import base64
import io
import json
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib

from mijax.errors import UserError
from mijax.report.contours import contours
from mijax.report.figures import STYLE, case_strips, learning_curves
from mijax.report.finding import finding
from mijax.report.labels import differences
from mijax.report.measures import meanings, measures_caption, measures_grid
from mijax.report.pictures import cluster_maps, joint_distributions, marginals
from mijax.report.table import NONE, caption, grids, p_values
from mijax.run import data_name

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
_JOINTS = (
    "Joint distribution P of the classes of a pixel of f(x) (down) and of its neighbour at "
    "displacement (dy, dx) in T⁻¹ f(T x) (across), in %, over {count} classes in the order "
    "{classes}; validation slices, one seeded T an image, the same in every row. I is the mean "
    "mutual information over the displacements, which local_mi maximises: mass on the diagonal, "
    "balanced over the classes, makes it large. The true labels are paired with themselves."
)
_MARGINALS = (
    "Marginals of P without displacement, in %: how much of each class the network finds in an "
    "image, and in its transformed copy. A class that fades out here has died."
)

_NAMING = (
    "Where rows have the same method, those values are in a row's name that at most half of them "
    "have."
)


class Illustration(NamedTuple):
    """A figure of the page: its heading, its caption, the PNG and its width in inches."""

    name: str
    heading: str
    caption: str
    png: bytes
    width: float

    @property
    def source(self):
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


class Illustrator:
    """Draws the figures into a folder and keeps them for the page.

    Attributes:
      figures: list of ``Illustration``, of the runs that segment.
      pretraining: the same of those that learned without labels.
      notes: why some are not there.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        self._folder.mkdir(exist_ok=True)
        for old in self._folder.glob("*.png"):  # else those of an earlier report stay
            old.unlink(missing_ok=True)  # the last jobs of an array may end together
        self.figures, self.pretraining, self.notes = [], [], []

    def draw_logs(self, table):
        """Figures of what the runs wrote."""
        with matplotlib.rc_context(STYLE):
            several = any(len(row.runs) > 1 for row in table.rows)
            text = _STRIPS.format(seeds=", averaged over seeds" if several else "")
            text += _JOINED if len(table.rows) > 1 else ""
            self._add("cases", "DSC of every case", text, case_strips(table))
        self._draw_curves("curves", _CURVES, table.rows)

    def draw_pretraining_logs(self, rows):
        """The same of runs that learned without labels."""
        self._draw_curves("pretraining_curves", _PRETRAINING_CURVES, rows)

    def draw_clusters(self, rows, *, data_dir, tell):
        """Cluster maps of pre-training; a note where the data cannot be had."""
        from mijax.report.clusters import find_clusters

        try:
            found, notes = find_clusters(rows, data_dir=data_dir)
        except (UserError, OSError) as error:
            self.notes.append(f"No cluster maps: {error}.")
            tell(f"the report is without cluster maps: {error}")
            return
        self.notes += notes
        if found:
            text = _CLUSTERS.format(count=len(found[0].maps))
            text += " Every row has colours of its own." if len(found) > 1 else ""
            with matplotlib.rc_context(STYLE):
                self._add("clusters", "Cluster maps", text, cluster_maps(found), self.pretraining)

    def draw_predictions(self, rows, *, data_dir, tell):
        """Figures that need the networks and the data; a note where these cannot be had."""
        from mijax.report.predictions import predict

        try:
            found = predict(rows, data_dir=data_dir)
        except (UserError, OSError) as error:
            self.notes.append(f"No contours and joint distributions: {error}.")
            tell(f"the report is without contours and joint distributions: {error}")
            return
        self.notes += found.notes
        with matplotlib.rc_context(STYLE):
            heading = "Contours"
            for chosen in found.excerpts:
                text = _CONTOURS.format(title=chosen.title, case=chosen.case)
                name = f"contours_{chosen.title.split()[0].lower()}"
                self._add(name, heading, text, contours(chosen, rows, found.classes))
                heading = ""
            text = _JOINTS.format(count=len(found.classes), classes=", ".join(found.classes))
            drawn = joint_distributions(found.joints, found.classes)
            self._add("joint", "Joint distributions", text, drawn)
            drawn = marginals(found.joints, found.classes)
            self._add("marginals", "Marginals", _MARGINALS, drawn)

    def _draw_curves(self, name, text, rows):
        several = any(len(row.runs) > 1 for row in rows)
        band = ": the mean over seeds, and their range as a band" if several else ""
        figures = self.pretraining if rows[0].pretraining else self.figures
        with matplotlib.rc_context(STYLE):
            curves = learning_curves(rows)
            if curves:
                self._add(name, "Learning curves", text.format(band=band), curves, figures)
            else:
                self.notes.append("No learning curves: no run has a metrics.jsonl.")

    def _add(self, name, heading, text, figure, figures=None):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        (self._folder / f"{name}.png").write_bytes(buffer.getvalue())
        width = figure.get_figwidth()
        figures = self.figures if figures is None else figures
        figures.append(Illustration(name, heading, text, buffer.getvalue(), width))


def to_html(rows, table, *, checkpoint, illustrator, left_out, files):
    """The page as text; it refers to nothing but the files beside it.

    Args:
      rows: of ``runs.Row``, all of them.
      table: ``statistics.Table`` of those that segment, or None where there is none.
      checkpoint: "best" or "last".
      illustrator: ``Illustrator``, when it has drawn.
      left_out: folders of runs without scores.
      files: names of the files beside the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    pretraining = [row for row in rows if row.pretraining]
    runs = [(row, one) for row in rows for one in row.runs]
    infos = [_info(one.run) for _, one in runs]
    return environment.get_template("page.html.j2").render(
        name=data_name(rows[0].config),
        label=rows[0].label if len(rows) == 1 else None,
        rows=rows,
        runs=runs,
        training_cases=list(dict.fromkeys(row.training_cases for row in rows)),
        commands=[info["command"] for info in infos if "command" in info],
        scores=table and _scores(table, checkpoint),
        pretraining=pretraining
        and {
            "grid": measures_grid(pretraining),
            "meanings": meanings(pretraining),
            "caption": measures_caption(pretraining, checkpoint=checkpoint),
        },
        checkpoint=checkpoint,
        figures=illustrator.figures,
        pretraining_figures=illustrator.pretraining,
        notes=illustrator.notes,
        left_out=[folder.name for folder in left_out],
        differences=_differences(rows),
        naming=_NAMING if any(row.label.startswith(f"{row.base}, ") for row in rows) else "",
        settings=[
            (row.label, {key: _show(value) for key, value in row.settings.items()})
            for row in rows
            if row is rows[0] or row.runs[0].origin
        ],
        versions=_versions(infos),
        files=list(files),
    )


def _scores(table, checkpoint):
    """What the page says of runs that segment."""
    return {
        "finding": finding(table),
        "grids": grids(table),
        "tests": p_values(table),
        "caption": caption(table, checkpoint=checkpoint),
        "split": table.rows[0].runs[0].entry["split"],
        "cases": len(table.rows[0].runs[0].entry["cases"]),
        "classes": table.columns[:-1],
    }


def _differences(rows):
    """Label of each row, of the first row of its kind, and the settings that it has otherwise.

    A first row, whose second label is None, has all settings in which the rows differ.
    """
    found, first = differences(rows), {}
    lines = []
    for i, row in enumerate(rows):
        j = first.setdefault(row.kind, i)
        own = {
            key: _show(values[i])
            for key, values in found.items()
            if (values[i] is not None if j == i else values[i] != values[j])
        }
        lines.append((row.label, None if j == i else rows[j].label, own))
    return lines


def _info(run):
    try:
        return run.info()
    except UserError:  # a report does without
        return {}


def _versions(infos):
    """Versions of each package over all runs, joined where they differ."""
    found = {}
    for info in infos:
        versions = {"python": info.get("python"), **info.get("versions", {})}
        versions["git revision"] = (info.get("git_revision") or "")[:12]
        for name, version in versions.items():
            if version:
                found.setdefault(name, dict.fromkeys([]))[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _show(value):
    return NONE if value is None else json.dumps(value, ensure_ascii=False).strip('"')
