"""The page of a report: one HTML file that holds everything."""

import json
from pathlib import Path

import jinja2
import numpy as np

from mijax.report.caption import caption
from mijax.report.comparable import noted
from mijax.report.finding import finding
from mijax.report.labels import differences
from mijax.report.measures import meanings, measures_caption, measures_grid
from mijax.report.table import NONE, parts
from mijax.report.viewer import ASSETS
from mijax.runs.folder import data_name

_COLUMNS, _FEW = 8, 6  # that a table has on a narrow page; and where it had more, and is divided
_NAMING = (
    "Where rows have the same method, those values are in a row's name that at most half of them "
    "have."
)


def to_html(rows, table, *, checkpoint, listed, illustrator, left_out, files):
    """The page as text; it refers to nothing but the files beside it.

    Args:
      rows: of ``runs.Row``, all of them.
      table: ``statistics.Table`` of those that segment, or None where there is none.
      checkpoint: "best" or "last".
      listed: of ``viewer.list_cases``, or None without ``table``.
      illustrator: ``Illustrator``, when it has drawn.
      left_out: folders of runs that are not finished, or without scores.
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
    infos = [noted(one.run) for _, one in runs]
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
        listed=listed,
        viewer=bool(listed) and any(number is not None for number in listed["files"]),
        script=(ASSETS / "viewer.js").read_text(encoding="utf-8"),
        figures=illustrator.figures,
        pretraining_figures=illustrator.pretraining,
        notes=illustrator.notes,
        left_out=[folder.resolve().name for folder in left_out],
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
        "grids": [part for grid in parts(table) for part in narrow_grids(*grid)],
        "caption": caption(table, checkpoint=checkpoint),
        "split": table.rows[0].runs[0].entry["split"],
        "cases": len(table.rows[0].runs[0].entry["cases"]),
        "classes": table.columns[:-1],
    }


def narrow_grids(title, header, rows):
    """A table as several of few columns where it has many, each with the names of the rows."""
    columns = range(1, len(header))
    count = 1 if len(columns) <= _COLUMNS else -(-len(columns) // _FEW)
    rows = [list(row) for row in rows]
    parts = []
    for i, part in enumerate(np.array_split(columns, count)):
        taken = [0, *part.tolist()]
        lines = [[row[j] for j in taken] for row in rows]
        parts.append((title + ", continued" * (i > 0), [header[j] for j in taken], lines))
    return parts


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
