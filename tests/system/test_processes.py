"""Several processes of one run, by launch/local.sh and by the variables of clusters."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mijax import parallel
from mijax.configs.phantom import get_config
from mijax.errors import UserError
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import check_processes

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.mark.xdist_group("runs")
def test_two_processes_go_on_where_one_stopped(copied, uninterrupted, restored):
    """From a checkpoint of one process on eight devices; what two write, one reads again."""
    run = copied("local_mi")
    (run.folder / "scores.json").unlink(missing_ok=True)
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        assert checkpoints.last_step() == 12
    (run.checkpoints / "12" / "SHA256SUMS").unlink()  # step 8 is then the last
    environment = {
        **os.environ,
        # One device each, and what the other flags say of rounding.
        "XLA_FLAGS": re.sub(r"--xla_force_host_platform\S+", "", os.environ["XLA_FLAGS"]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHON": sys.executable,
    }
    command = [LAUNCH / "local.sh", "2", "--workdir", str(run.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "[0] mijax: going on from step 8 of 12" in done.stderr
    assert re.search(r"^\[0\] last (and best )?\(step 12\)", done.stdout, re.MULTILINE)
    for said in (done.stdout, done.stderr):  # one of them talks, but for Gloo
        assert not [x for x in said.splitlines() if x.startswith("[1]") and "Gloo" not in x]
    one, two = (restored(r)[1] for r in (uninterrupted("local_mi"), run))
    assert two.step == 12
    # Sums of floats in another order. Not the moments of Adam: where a ReLU is at 0 but for
    # rounding, a gradient jumps.
    for part in ("params", "batch_stats", "memory"):
        pairs = (jax.tree.leaves(getattr(state, part)) for state in (one, two))
        for a, b in zip(*pairs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def slurm(process):
    """What srun sets, for two tasks on this machine."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def open_mpi(process):
    """What mpirun sets, for two processes on this machine."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{2**12 * os.getpid()}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    }


JOIN = """
import logging, sys
import jax
import numpy as np
from mijax import commands, parallel
commands.show(logging.getLogger("mijax"), logging.INFO)
parallel._WAIT = int(sys.argv[1])
parallel.join()
of_the_host = parallel.put(np.array([np.nan, 5]), parallel.make_mesh())
process = jax.process_index()
assert parallel.of_all("é" * (2 * process + 1)) == ["é", "ééé"]
print(process, jax.process_count(), len(jax.devices()), *np.asarray(of_the_host))
"""


def joined(*environments, seconds=60):
    """Exit code, last line on stdout and our lines on stderr of a process a environment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, str(seconds)],
            env={**os.environ, "XLA_FLAGS": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err and "***" not in err, err
        found.append((process.returncode, *out.splitlines()[-1:], err.splitlines()))
    return found


@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_clusters_are_known_by_their_variables(cluster):
    found = joined(cluster(0), cluster(1))
    assert [out for _, out, _ in found] == ["0 2 2 nan 5.0", "1 2 2 nan 5.0"]


def test_other_flags_in_one_of_the_processes(monkeypatch):
    """Each of them is told what differs, but for where the data and the cache lie there."""
    config = get_config("mean_teacher")
    texts = []
    for changed in ({"cache": "a", "data.source.dir": "b"}, {"seed": 1}):
        with config.unlocked():
            config.update_from_flattened_dict(changed)
        monkeypatch.setattr(parallel, "of_all", lambda text: texts.append(text) or [text])
        check_processes("runs/a", config)
    monkeypatch.setattr(parallel, "of_all", lambda text: [*texts, text])
    with pytest.raises(UserError, match=r"process 0 .* \(config\.seed is 0 there and 1 here\)"):
        check_processes("runs/a", config)
    del texts[0]
    check_processes("runs/a", config)
    with pytest.raises(UserError, match="process 0 .*--workdir is runs/a there and runs/b here"):
        check_processes("runs/b", config)
    monkeypatch.undo()
    config.learning_rate = float("nan")  # refused later, for what it is
    check_processes("runs/a", config)


@pytest.mark.parametrize(
    "variables",
    [
        slurm(0) | {"SLURM_NTASKS": "1"},
        slurm(0) | {"SLURM_STEP_NUM_TASKS": "1"},  # a shell of salloc --ntasks=2
        slurm(1) | {"JAX_NUM_PROCESSES": "1"},
        open_mpi(0) | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
    ],
)
def test_a_single_process_joins_nothing(variables, monkeypatch):
    """It sees all devices, and two of them beside each other do not meet."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("jax.distributed.initialize", pytest.fail)
    parallel.join()


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        (slurm(1) | {"SLURM_STEP_NUM_NODES": "2"}, []),  # all that there are
        (slurm(1) | {"SLURM_STEP_NUM_NODES": "1"}, None),  # JAX gives each task one
        (open_mpi(1) | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        (open_mpi(1) | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
    ],
)
def test_a_process_alone_on_its_machine_sees_all_devices(variables, wanted, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = {}
    monkeypatch.setattr("jax.distributed.initialize", lambda **options: asked.update(options))
    parallel.join()
    assert asked["local_device_ids"] == wanted


def test_others_that_do_not_come():
    ((code, err),) = joined(slurm(0) | {"SLURM_JOB_ID": str(os.getpid() + 1)}, seconds=3)
    assert code == 1
    first, last = (line for line in err if line.startswith("mijax: "))
    assert first.startswith("mijax: waiting 3 s for the other 1 of 2 processes of this run")
    assert last.startswith("mijax: the other 1 of 2 processes did not come within 3 s; start them")
    assert all("JAX_NUM_PROCESSES=1 trains with this one alone" in x for x in (first, last))


@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_NUM_PROCESSES": "2"},
        {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
    ],
)
def test_half_of_the_variables_or_no_numbers(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES"):
        parallel.join()
