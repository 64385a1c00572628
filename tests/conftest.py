"""Eight CPU devices in every test, and the strictest settings JAX has."""

import contextlib
import logging
import os

# Read when JAX makes its backend, in this process and in those that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")  # as in ``commands.prepare_jax``
os.environ.setdefault("PJRT_NPROC", "16")  # threads for two steps at once: see parallel.finished
# Most of the time of these tests is compilation of programs that run once.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile(
    "mijax",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is no fault
)
hypothesis.settings.load_profile("mijax")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Under ``pytest -n N --dist loadgroup`` one worker does all runs, and compiles once.

    So it does the tests of a file. Groups with names come first, as they take longest.
    """
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            group = "runs" if "cache" in item.fixturenames else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0].endswith(".py"))


@pytest.fixture(scope="session")
def listening():
    """``with listening() as lines``: what mijax logs meanwhile."""

    @contextlib.contextmanager
    def listen():
        lines, logger = [], logging.getLogger("mijax")
        handler, before = logging.Handler(logging.INFO), logger.level
        handler.emit = lambda record: lines.append(record.getMessage())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield lines
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)

    return listen


@pytest.fixture
def told(listening):
    """What mijax logs during a test."""
    with listening() as lines:
        yield lines
