"""What a run tells while it goes: metrics.jsonl, TensorBoard events, trackers, the terminal."""

import contextlib
import json
import sys
import time
from pathlib import Path

from mijax.files import write_atomically
from mijax.progress import terminal_bar
from mijax.runs.tracking import Tracking


class MetricsLog:
    """Writes scalars of a run to its folder and shows how far it is, as a context manager.

    On a terminal a progress bar with the latest values and the time left; elsewhere a plain
    line each time. Only process 0 writes; on others every call does nothing.
    """

    def __init__(self, workdir, *, steps, start, enabled=True):
        """Goes on behind step ``start``: later lines of an earlier attempt are dropped."""
        self._enabled = enabled
        if not enabled:
            return
        from tensorboardX import SummaryWriter

        self._tracking = Tracking(Path(workdir))
        self._steps, self._start, self._began = steps, start, time.monotonic()
        path = Path(workdir) / "metrics.jsonl"
        _drop_lines_after(path, start)
        self._lines = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(
            str(Path(workdir) / "events"),
            purge_step=start + 1,
            flush_secs=1,  # not 120, of which a kill would take what no later start writes again
        )
        self._shown = {}
        self._bar = terminal_bar("train", steps, done=start) if sys.stderr.isatty() else None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._enabled:
            self._tracking.close(done=kind is None)
            if self._bar:
                self._bar.stop()
            with contextlib.suppress(OSError):  # on a full disk; what failed before is told
                self._lines.close()
                self._events.close()

    def hyperparameters(self, values, *, score):
        """Records values by name, and the scalar that they are to be compared by."""
        if not self._enabled:
            return
        from tensorboardX.summary import hparams

        shown = {k: v if isinstance(v, str | int | float) else str(v) for k, v in values.items()}
        self._tracking.hyperparameters(shown)
        # Not add_hparams, which makes a run of its own of them, in a folder of its own.
        for summary in hparams(shown, {score: 0}):
            self._events.file_writer.add_summary(summary)

    def scalars(self, step, values):
        """Records floats by name at a step and shows them, but for the parts of a "whole/part"."""
        if not self._enabled:
            return
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._tracking.scalars(step, values)
        values = {name: value for name, value in values.items() if "/" not in name}
        self._shown |= values
        if not self._bar:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            left = (time.monotonic() - self._began) / max(step - self._start, 1)
            minutes = left * (self._steps - step) / 60
            print(f"step {step}/{self._steps}  {shown}  {minutes:.1f} min left", file=sys.stderr)

    def leave_out(self, seconds):
        """Time that passed and says nothing of the steps to come, such as that of compiling."""
        if self._enabled:
            self._began += seconds

    def picture(self, step, name, image):
        """Records an image (h, w, 3) uint8 for TensorBoard alone."""
        if self._enabled:
            self._events.add_image(name, image, step, dataformats="HWC")

    def progress(self, step):
        """Moves the bar to ``step``."""
        if self._enabled and self._bar:
            shown = "  ".join(f"{_short(n)} {v:.3f}" for n, v in self._shown.items())
            self._bar.update(self._bar.task_ids[0], completed=step, shown=shown)


def _short(name):
    return {"validation_dsc_percent": "DSC %", "learning_rate": "lr"}.get(name, name)


def _drop_lines_after(path, step):
    """Keeps the whole lines up to ``step``: a kill may have left later ones, or half of one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except ValueError:
            pass
    write_atomically(path, b"".join(kept))
