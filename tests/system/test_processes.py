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
from mijax.checkpoint import Checkpoints
from mijax.errors import UserError
from mijax.inference import restore

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.mark.xdist_group("runs")
def test_two_processes_go_on_where_one_stopped(copied, uninterrupted):
    """From a checkpoint of one process on eight devices; what two write, one reads again."""
    run = copied("local_mi")
    (run.folder / "scores.json").unlink(missing_ok=True)
    with Checkpoints(run.checkpoints, tell=pytest.fail, read_only=True) as checkpoints:
        assert checkpoints.last_step() == 12
    (run.checkpoints / "12" / "SHA256SUMS").unlink()  # step 8 is then the last
    environment = {
        **os.environ,
        "XLA_FLAGS": "",  # one device each
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
    one, two = (
        restore(r, checkpoint="last", tell=pytest.fail)[1] for r in (uninterrupted("local_mi"), run)
    )
    assert two.step == 12
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # sums of floats in another order


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
import jax
from mijax import parallel
parallel.join()
print(jax.process_index(), jax.process_count(), len(jax.devices()))
"""


@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_clusters_are_known_by_their_variables(cluster):
    environments = [{**os.environ, "XLA_FLAGS": "", **cluster(process)} for process in range(2)]
    command = [sys.executable, "-c", JOIN]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for environment in environments
    ]
    found = [process.communicate(timeout=120)[0].splitlines()[-1] for process in both]
    assert found == ["0 2 2", "1 2 2"]


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
