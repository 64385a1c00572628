"""What the commands share: flags to one clean line, errors to one clean line, the cache."""

import sys
from pathlib import Path

from absl import app, flags, logging

from mijax.errors import UserError


def run(main):
    """Runs ``main(argv)`` as a command, with the flags of absl.

    A mistake in the flags or in the input ends in one line on stderr and exit code 2 or 1.
    """
    app.run(lambda argv: _main(main, argv), flags_parser=_parse)


def tell(line):
    """A line for the user, beside the results."""
    print(f"mijax: {line}", file=sys.stderr, flush=True)


def fail(line, *, code=2):
    """Ends the command with a line."""
    tell(line)
    sys.exit(code)


def use_compilation_cache(cache):
    """Keeps compiled programs under ``cache``/xla: the second start takes a third of the time."""
    import jax

    folder = Path(cache).expanduser() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _main(main, argv):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS tell of every file they touch
    try:
        main(argv)
    except UserError as error:
        fail(str(error), code=1)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from the last checkpoint", code=130)


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(" ".join(str(error).split()).strip("\"'"))
    except UserError as error:
        fail(str(error))
    if rest[1:]:
        fail(f"does not know what to do with {' '.join(rest[1:])}")
    return rest
