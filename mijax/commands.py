"""What the commands share: flags to one clean line, errors to one clean line, the cache."""

import contextlib
import errno
import functools
import logging as python_logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path

from absl import app, flags, logging

from mijax import options
from mijax.errors import Notice, Preempted, UserError, lines_of
from mijax.progress import out_of_memory

INTERRUPTED = 130  # exit code after Ctrl-C, as of shells
PREEMPTED = 75  # exit code after SIGTERM: saved, to be run again; EX_TEMPFAIL of sysexits.h


def run(main, define_flags=None, *, arguments=False):
    """Runs ``main(argv)`` as a command, with the flags of absl that ``define_flags()`` defines.

    They are not defined where the module is imported, which is free to programs with flags of the
    same names.

    A mistake in the flags or in the input ends in one line on stderr and exit code 2 or 1.
    With ``arguments`` the command takes some besides its flags, in any order with them.
    Characters that the standard output cannot show, in names of classes or files, are replaced.
    """
    if hasattr(sys.stdout, "reconfigure"):  # not of a notebook; of stderr it is Python's default
        sys.stdout.reconfigure(errors="replace")
    if define_flags:
        define_flags()
    flags.FLAGS.set_gnu_getopt(arguments)
    parse = functools.partial(_parse, arguments=arguments)
    app.run(lambda argv: _main(main, argv), flags_parser=parse)


def tell(line):
    """A line for the user, beside the results."""
    print(f"mijax: {line}", file=sys.stderr, flush=True)


def fail(line, *, code=2):
    """Ends the command with a line."""
    tell(line)
    if _has_others():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def given_keys():
    """The flags ``config.KEY`` that were given."""
    if "config" not in flags.FLAGS or not flags.FLAGS["config"].present:
        return []
    return [f"config.{key}" for key in flags.FLAGS["config"].override_values]


def _has_others():
    """Whether this is one of several processes, whose orderly end would wait for the others."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def prepare_jax(config):
    """Sets up JAX for a run with that configuration, before its first use.

    Compiled programs are kept under ``config.cache``/xla: the second start takes half the time.
    Where JAX runs on processor cores, each is a device of its own (``parallel.split_processor``).
    """
    import jax

    from mijax.parallel import devices, split_processor

    folder = Path(config.cache).expanduser() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    learning = config.hypergradient
    batches = [learning.batch] if learning.weights else []
    split_processor(config.labelled_batch, config.unlabelled_batch, *batches)
    devices()  # refuses what is not there, before any other work


def _main(main, argv):
    show(python_logging.getLogger("mijax"), python_logging.INFO)
    if not flags.FLAGS["verbosity"].present:
        # Orbax and TFDS tell of every file they touch, and of errors that they raise besides.
        logging.set_verbosity(logging.FATAL)
        threading.excepthook = lambda args: tell(_last_line(args.exc_value))
        # What JAX warns of when it looks for devices: a GPU it cannot use.
        show(python_logging.getLogger("jax._src.xla_bridge"), python_logging.WARNING)
    warnings.showwarning = _show_warning
    try:
        with _second_interrupt_ends():
            main(argv)
    except UserError as error:
        fail(str(error), code=1)
    except Preempted as error:
        fail(str(error), code=PREEMPTED)
    except KeyboardInterrupt as error:
        line = str(error) or "interrupted; the same command goes on with what is not done"
        fail(line, code=INTERRUPTED)
    except Exception as error:
        line = out_of_memory(error)
        if line is None and isinstance(error, OSError):  # a full disk, a folder become read-only
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            line = _last_line(error) + "; free space there, and the same command goes on" * full
        if line is not None:
            fail(line, code=1)
        if _has_others():
            traceback.print_exc()
            os._exit(1)
        raise


def _show_warning(message, category, *place, _others=warnings.showwarning, _told=set()):  # noqa: B006
    """A notice as a line of its own, once; anything else as Python does."""
    if not issubclass(category, Notice):
        _others(message, category, *place)
    elif str(message) not in _told:
        _told.add(str(message))
        tell(message)


def show(logger, level):
    """Shows what a logger is told, from that level on, in a line each."""
    handler = python_logging.Handler(level)
    handler.emit = lambda record: tell(" ".join(record.getMessage().split()))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


@contextlib.contextmanager
def _second_interrupt_ends():
    """A first Ctrl-C interrupts, as ever; a second one ends the process, whatever it is at.

    Python looks at signals between two of its own instructions only, and JAX may compile for
    minutes: the bytes that it writes for each at once are read by a thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def read():
        interrupts = 0
        while byte := os.read(reader, 1):
            interrupts += byte[0] == signal.SIGINT
            if byte[0] == signal.SIGINT and interrupts == 1:
                tell("Ctrl-C: comes to an end in good order; a second Ctrl-C ends at once")
            elif interrupts > 1:
                tell("ended at once")
                os._exit(INTERRUPTED)
        os.close(reader)

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _parse(argv, *, arguments):
    argv, file = [_at_home(word) for word in argv], None
    if "config" in flags.FLAGS:
        try:
            argv = options.settled(argv)
        except UserError as error:
            fail(str(error))
        file, keys = options.given(argv)
        if keys and not file:
            line = f"--{keys[0]} needs --config FILE before it; --workdir alone goes on as it was"
            longer = f". Of an old run: {options.LONGER.format(run='RUN')}"
            fail(line + longer * ("config.steps" in keys))
    try:
        try:
            rest = flags.FLAGS(argv)
        except SystemExit:  # absl's --help, which it counts as a failure
            if file:
                print(options.listing(file))
            sys.exit(0)
    except UserError as error:
        fail(str(error))
    except Exception as error:  # a configuration file is a program and fails in every way
        fail(_flag_error(error))
    if rest[1:] and not arguments:
        fail(f"does not know what to do with {' '.join(rest[1:])}")
    return rest


def _at_home(word):
    """``--FLAG=~/x`` with the home folder: shells put it where a word begins with ``~`` alone."""
    flag, equals, value = word.partition("=")
    return flag + equals + os.path.expanduser(value) if flag.startswith("-") else word


def _flag_error(error):
    """What is wrong with the flags, or with the configuration file and where, in one line."""
    if isinstance(error, OSError):
        return _last_line(error)
    # Of what goes wrong in the file, ml_collections passes some on as the text of a traceback.
    text = str(error)
    if not isinstance(error, flags.Error):
        text = "".join(traceback.format_exception(error))
    if group := re.match(r"flag --(config\.[\w.]+)=.* as a ConfigDict", text, re.DOTALL):
        line = f"--{group[1]} has values of its own, --{group[1]}.KEY"
        named = ", and a method is named with the file, --config FILE:METHOD"
        return line + named * (group[1] == "config.method")
    places = re.findall(r'File "(.+)", line (\d+)', text)
    if not places:
        return " ".join(text.split())
    file, line = places[-1]
    if isinstance(error, KeyError | AttributeError) and "ml_collections" in file:
        name = re.search(r"\w+", str(error))[0]
        hint = re.search(r'Did you mean "(.+?)"', str(error))
        return f"the configuration has no {name}" + (f"; did you mean {hint[1]}?" if hint else "")
    return f"{file}, line {line}: {text.strip().splitlines()[-1]}"


def _last_line(error):
    # Where ml_collections finds no file, the lines before are its attempts.
    return lines_of(error)[-1].strip()
