"""What one pays for ``from mijax.losses import …``: JAX alone."""

import os
import subprocess
import sys
from pathlib import Path

import mijax

HEAVY = [
    "flax",
    "matplotlib",
    "ml_collections",
    "nibabel",
    "optax",
    "orbax",
    "SimpleITK",
    "surface_distance",
    "scipy.ndimage",
    "tensorflow_datasets",
]


def test_losses_and_transforms_import_jax_alone():
    program = (
        "import sys\n"
        "import mijax.losses, mijax.transforms\n"
        f"print(*[m for m in {HEAVY} if m in sys.modules])\n"
        # A program with flags of its own, such as --workdir, imports the rest as well.
        "import mijax.evaluate, mijax.export, mijax.predict\n"
        "from absl import flags\n"
        "print(*flags.FLAGS.flags_by_module_dict().keys() - {'absl.app', 'absl.logging'})"
    )
    root = str(Path(mijax.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []
