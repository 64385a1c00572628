"""trust.csv: what is estimated of each predicted scan, the worst first."""

import csv
import io

from mijax.errors import UserError
from mijax.files import write_atomically
from mijax.inference.signals import SIGNALS

FILE = "trust.csv"
MEAN = "mean"  # the class of the row of a case
_COLUMNS = ("case", "class", "dsc", "low", "high", "look", "why", *SIGNALS, "volume_ml", "pieces")


class TrustTable:
    """The table of an output folder, there in one piece after each scan.

    A case has a row of its mean over the classes and one of each class. Cases are in the order of
    the lower ends of the intervals of their means, and of their estimates where these are alike;
    DSC and interval are fractions, ``look`` is "yes" where the lower end of the interval is below
    a threshold or there is a reason, ``why``. Rows that other processes have added stay.
    """

    def __init__(self, folder, *, below=None, fresh=False):
        """Takes over the rows of a table that is there, marked by the threshold, in the file, too.

        Args:
          folder: of the output.
          below: threshold of the lower end; None where the marks stay and no case will be added.
          fresh: begin anew where what is there is no such table.

        Raises:
          UserError: there it is none, and not to begin anew.
        """
        self._path, self._below, self._cases = folder / FILE, below, {}
        self._fresh = False
        try:
            self._cases = self._read()
        except UserError:
            if not fresh:
                raise
            self._fresh = True
        if below is not None and any([*map(self._mark, self._cases.values())]):
            self._write()

    def __contains__(self, case):
        return case in self._cases

    def add(self, case, trust):
        """Adds the rows of a case, see ``trust.Trust``."""
        why = [f"{name}: {reason}" for name, reasons in trust.why.items() for reason in reasons]
        rows = [self._row(case, MEAN, trust.mean, why, {})]
        for name, estimate in trust.classes.items():
            rows.append(self._row(case, name, estimate, trust.why[name], trust.signals[name]))
        self._cases = self._now() | {case: rows}
        self._mark(rows)
        self._write()

    def drop(self, case):
        """Takes out the rows of a case, if there are any: they are of another label map."""
        if case in self._cases:
            self._cases = self._now()
            self._cases.pop(case, None)
            self._write()

    def summary(self, cases):
        """A line about some cases: how many of them to look at, and the worst."""
        first = {case: self._cases[case][0] for case in cases}
        worst = min(first.values(), key=_rank)
        count = sum(row["look"] == "yes" for row in first.values())
        estimate, low, high = (f"{100 * float(worst[name]):.0f}" for name in ("dsc", "low", "high"))
        return (
            f"{self._path}: {count} of {len(first)} to look at; the worst is {worst['case']}, "
            f"estimated DSC {estimate} % ({low} to {high})"
        )

    def _row(self, case, name, estimate, why, signals):
        values = {key: f"{value:.4g}" for key, value in signals.items() if value == value}
        numbers = {key: f"{getattr(estimate, key):.4f}" for key in ("dsc", "low", "high")}
        texts = {"case": case, "class": name, "why": "; ".join(why)}
        return dict.fromkeys(_COLUMNS, "") | texts | numbers | values

    def _mark(self, rows):
        """Sets ``look`` in the rows of a case, in the first for all; whether that changed one."""
        before = [row["look"] for row in rows]
        for row in rows:
            row["look"] = "" if float(row["low"]) >= self._below and not row["why"] else "yes"
        rows[0]["look"] = max(row["look"] for row in rows)
        return before != [row["look"] for row in rows]

    def _now(self):
        """The rows that are in the file now, by case; none of what is no table, to begin anew."""
        cases, self._fresh = {} if self._fresh else self._read(), False
        if self._below is not None:
            for rows in cases.values():
                self._mark(rows)
        return cases

    def _write(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for rows in sorted(self._cases.values(), key=lambda rows: _rank(rows[0])):
            writer.writerows(rows)
        write_atomically(self._path, text.getvalue())

    def _read(self):
        cases = {}
        if not self._path.exists():
            return cases
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    _rank(row)
                    cases.setdefault(row["case"], []).append({key: row[key] for key in _COLUMNS})
            for case, rows in cases.items():
                rows.sort(key=lambda row: row["class"] != MEAN)  # it may have been sorted otherwise
                if rows[0]["class"] != MEAN:
                    raise ValueError(f"no row of the mean of {case}")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._path} is not a table of estimates, or not whole ({error}); --overwrite "
                "replaces it"
            ) from error
        return cases


def _rank(row):
    """Smaller of a worse case; where nothing is calibrated all lower ends are 0."""
    return float(row["low"]), float(row["dsc"])
