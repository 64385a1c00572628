"""Eight CPU devices in every test, and the strictest settings JAX has."""

import os

# Read when JAX makes its backend, in this process and in those that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Most of the time of these tests is compilation of programs that run once.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("mijax", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("mijax")
