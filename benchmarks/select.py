"""Whether mijax.select chooses better than chance, and every 4th slice of 4 patients teaches more
than all of one: many short trainings, in one process.

python -m benchmarks.select hippocampus FOLDER --output RUNS.jsonl

Each line of RUNS.jsonl is one run: the patients that were labelled, the method and the seed, and
the DSC of every validation and test case after the last step (mean over the classes, pooled over
the slices of the training's size). The same command goes on where it was killed. First come the
jobs of ``--choices FILE``, of {"name", "patients", "seeds"}, and then rounds, one random draw of
each N a round, and that of the largest N with every 4th slice alone, so that what is there at any
time can be compared. ``--choose FILE`` writes such a file, of the strategies that are compared, and
``--report`` prints what the runs say; both embed the patients by ``--features RUN`` as well, which
may be repeated.

The protocol is short, and what it is worth is in docs/annotating.md: hippocampus 800 steps of 16
slices of 40 × 56 and a U-Net of 8…64, every third slice scored; ACDC 600 steps, every second slice
scored; all else as in the tables. With 160 steps half of the trainings on Hippocampus lose a class,
whoever was drawn; with these some of those from a single patient do. On ACDC 500 steps of 12 slices
of 64 × 64 do not do: the same four patients have 30 to 58 % on test by seed.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.select_report import STRATEGIES, embeddings, report
from mijax import commands, parallel
from mijax.configs import acdc_small, hippocampus
from mijax.data import read_splits
from mijax.data.patches import slice_volume
from mijax.inference.batching import predict_stacks
from mijax.methods import Unlabelled
from mijax.metrics import dice
from mijax.runs.source import index_data, open_data
from mijax.training.batches import TrainingSet
from mijax.training.build import build

CONFIGS = {"hippocampus": hippocampus, "acdc": acdc_small}
NUMBERS, DRAWS, EVERY = (1, 2, 4), 20, 4
ROLES = ("validation", "test")
_SLICES, _UNLABELLED = 256, 1024  # of a training set, so that all have one compiled program


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=CONFIGS)
    parser.add_argument("folder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--method", default="supervised")
    parser.add_argument("--choices", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", choices=NUMBERS, help="of patients alone")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--test", action="store_true", help="report the test cases, too")
    parser.add_argument("--choose", type=Path)
    parser.add_argument("--features", action="append", default=[])
    options = parser.parse_args()
    config = protocol(options.data, options.folder, options.method)
    commands.prepare_jax(config)
    if options.report or options.choose:
        original = CONFIGS[options.data].get_config("supervised").data
        original.source.dir, config.data = options.folder, original
        _, scans = dealt(options.data, index_data(config).cases)
        found = embeddings(config, scans, options.features)
        if options.choose:
            lines = map(json.dumps, choices(list(scans), found))
            options.choose.write_text("".join(f"{line}\n" for line in lines))
        if options.report:
            roles = ROLES if options.test else ROLES[:1]
            print(*report(read(options.output), list(scans), found, roles=roles), sep="\n")
        return
    trainer = Trainer(options.data, config)
    before = done(options.output)
    for job in trainer.jobs(options.choices):
        if job in before or (options.numbers and len(job["patients"]) not in options.numbers):
            continue
        began = time.process_time()
        result = trainer.run(job)
        line = {**job, **result, "cpu_seconds": round(time.process_time() - began, 1)}
        with options.output.open("a") as file:
            file.write("\n" + json.dumps(line))  # the last line may be half of one
        shown = (f"{100 * np.mean(list(result[role].values())):.1f}" for role in ROLES)
        print(job["name"], len(job["patients"]), *shown, line["cpu_seconds"], flush=True)


def protocol(data, folder, method):
    """The configuration of the short trainings."""
    config = CONFIGS[data].get_config(method)
    config.data.source.dir = folder
    config.warmup_steps = 50
    config.predict_batch = 64
    if "ramp_steps" in config.method:
        config.method.ramp_steps = 200
    if data == "hippocampus":
        config.steps, config.labelled_batch, config.unlabelled_batch = 800, 16, 8
        config.data.patches.size, config.data.patches.fit = (40, 56), "crop"
        config.model.widths = (8, 16, 32, 64)
    else:
        config.steps = 600
    return config


def read(path):
    """The runs of a file, whole lines only."""
    lines = path.read_text().splitlines() if path.exists() else []
    runs = []
    for line in lines:
        try:
            runs.append(json.loads(line))
        except ValueError:
            continue  # half a line of a killed process
    return runs


def done(path):
    """The jobs of a file."""
    keys = ("name", "method", "patients", "seed", "every")
    return [{key: run.get(key, 1) for key in keys} for run in read(path)]


def dealt(data, cases):
    """The splits of the tables, and {patient: case names} of all their training cases."""
    splits = read_splits(Path(__file__).with_name(f"{data}_1_labelled.json"))
    training, scans = {*splits.labelled, *splits.unlabelled}, {}
    for case in cases:
        if case.name in training:
            scans.setdefault(case.patient, []).append(case.name)
    return splits, dict(sorted(scans.items()))


def choices(patients, found):
    """Yields what each strategy chooses by each embedding, where the whole of that is meant."""
    for name, embedding in found.items():
        if name in ("coarse", "levels", "size"):
            continue
        for strategy, choose in STRATEGIES.items():
            for number in NUMBERS:
                chosen = [patients[i] for i in choose(embedding, number)]
                yield {"name": f"{strategy} {name}", "patients": chosen, "seeds": 3}


class Trainer:
    """One compiled program, and all the slices of a data set."""

    def __init__(self, data, config):
        self.config = config
        self.source = source = open_data(config)
        step = 3 if data == "hippocampus" else 2
        self.slices = functools.cache(
            lambda name: slice_volume(source.volume(name), config.data.patches)
        )
        splits, self.scans = dealt(data, source.cases)
        self.scored = {
            role: {n: _every(self.slices(n), step) for n in getattr(splits, role)} for role in ROLES
        }
        self.experiment = build(config, classes=source.classes, channels=source.channels)
        self.step = self.experiment.train_step(1)
        predict = self.experiment.network.predict
        self.labels = jax.jit(lambda weights, images: predict(weights, images).argmax(-1))

    def jobs(self, choices):
        """The jobs in their order: those of the file, then random draws."""
        patients = list(self.scans)
        if choices and choices.exists():
            for line in choices.read_text().splitlines():
                choice = json.loads(line)
                for seed in range(choice["seeds"]):
                    yield self._job(choice["name"], choice["patients"], seed)
        for draw in range(DRAWS):
            for number, every in (*((n, 1) for n in NUMBERS), (NUMBERS[-1], EVERY)):
                drawn = np.random.default_rng([number, draw]).permutation(patients)[:number]
                yield self._job(f"random {draw}", drawn.tolist(), draw, every)

    def _job(self, name, patients, seed, every=1):
        method = self.config.method.name
        patients = sorted(patients)
        return {
            "name": name, "method": method, "patients": patients, "seed": seed, "every": every,
        }  # fmt: skip

    def run(self, job):
        """DSC of the scored cases, mean over classes, after the last step."""
        training_set = self.training_set(job["patients"], job["every"], job["seed"])
        slices = 0 if training_set.unlabelled is None else _UNLABELLED
        state = self.experiment.init(job["seed"], slices, None)
        for _ in range(self.config.steps):
            state, _logs = parallel.finished(self.step(state, training_set))
        weights = {
            "params": {"network": state.params["network"]}, "batch_stats": state.batch_stats,
        }  # fmt: skip
        classes, network = len(self.source.classes), self.experiment.network
        scores = {}
        for role, cuts in self.scored.items():
            stacks = (c.image for c in cuts.values())
            found = predict_stacks(self.labels, weights, stacks, batch=network.batch)
            scores[role] = {
                name: round(float(dice(labels, c.label, classes=classes).mean()), 4)
                for (name, c), labels in zip(cuts.items(), found, strict=True)
            }
        return scores

    def training_set(self, patients, every, first):
        """Of fixed numbers of slices, whatever there are; labels of every n-th slice of a scan."""
        names = [name for patient in patients for name in self.scans[patient]]
        cuts = [_every(self.slices(name), every, first % every) for name in names]
        image, label = (
            _repeated(np.concatenate([getattr(c, part) for c in cuts]), _SLICES)
            for part in ("image", "label")
        )
        others = None
        if self.experiment.method.unlabelled:
            names = [n for p in sorted(self.scans) if p not in patients for n in self.scans[p]]
            images = [self.slices(name).image for name in names]
            stack = np.concatenate(images)
            rows = _repeated(np.arange(len(stack)), _UNLABELLED)
            position = np.concatenate([np.linspace(0, 1, len(i), dtype=np.float32) for i in images])
            volume = np.repeat(np.arange(len(images), dtype=np.int32), [len(i) for i in images])
            others = Unlabelled(stack[rows], position[rows], volume[rows])
        return jax.device_put(TrainingSet(image, label, others))


def _every(cuts, step, first=0):
    return cuts._replace(image=cuts.image[first::step], label=cuts.label[first::step])


def _repeated(rows, count):
    """So many of the rows: all in turn, in a random order, so that none counts for much more."""
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order[np.arange(count) % len(rows)]]


if __name__ == "__main__":
    main()
