"""Commands as at a shell, in another process and in this one."""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import warnings

import pytest
from absl import app, flags

from mijax.errors import Notice


def run_module(module, *arguments):
    """Exit code, stdout, our lines of ``python -m module`` with these arguments."""
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # as ``cache`` has it
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, our_lines(done.stderr)


def run_here(module, *arguments):
    """The same in this process."""
    logger, out, err = logging.getLogger("mijax"), io.StringIO(), io.StringIO()
    app.define_help_flags()  # once a process, and to stay
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        warnings.simplefilter("always", Notice)  # which commands show as a line
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        for name in ("handlers", "propagate", "level"):
            patch.setattr(logger, name, getattr(logger, name))  # to be set back
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code or 0
            finally:
                for name in filter(_of_a_command, list(flags.FLAGS)):
                    delattr(flags.FLAGS, name)
    return code, out.getvalue(), our_lines(err.getvalue())


def _of_a_command(flag):
    """Whether it is no module's, which defines its flags but once."""
    return "." in flag or flags.FLAGS.find_module_defining_flag(flag).endswith(".py")


def our_lines(stderr):
    """What a command tells, but for its waits."""
    assert "Traceback" not in stderr, stderr
    lines = (line for line in stderr.splitlines() if line.startswith("mijax: "))
    ours = [line.removeprefix("mijax: ") for line in lines]
    waits = ("restoring ", "predicting ", "scoring ", "preparing ", "reading: ")
    return [line for line in ours if not line.startswith(waits)]
