"""An annotation of every n-th slice of the labelled cases of a configuration.

    python -m benchmarks.every_nth --config configs/hippocampus.py \\
        --config.data.source.dir=FOLDER --n=4 --first=2 annotation.json

Then --config.data.annotation.file=annotation.json trains on these slices alone.
"""

from absl import app, flags
from ml_collections import config_flags

from mijax.commands import given_keys
from mijax.data import Drawn, write_annotation
from mijax.data.annotation import across
from mijax.planning import settle_plan
from mijax.runs.source import index_data
from mijax.runs.splits import choose_splits

_CONFIG = config_flags.DEFINE_config_file("config")
_N = flags.DEFINE_integer("n", 4, "one slice in so many")
_FIRST = flags.DEFINE_integer("first", 0, "the first of them, from 0")


def main(argv):
    config = _CONFIG.value
    settle_plan(config, argv[1], given=given_keys())
    found, drawn = index_data(config), {}
    for name in choose_splits(config.data, found.cases).labelled:
        shape, _, affine = found.geometry(name)
        count = shape[across(affine, config.data.patches.plane)]
        drawn[name] = Drawn(tuple(range(_FIRST.value, count, _N.value)))
    write_annotation(argv[1], drawn)
    print(f"{argv[1]}: {sum(len(d.slices) for d in drawn.values())} slices of {len(drawn)} cases")


if __name__ == "__main__":
    app.run(main)
