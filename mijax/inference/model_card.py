"""The model card of a bundle: what it was trained on, what it scored, and what it is not for."""

from mijax.data import read_splits
from mijax.errors import times
from mijax.files import read_json
from mijax.inference.score_table import table
from mijax.runs.folder import data_name

_UNSCORED = "None: the run has no scores.json of this checkpoint (`python -m mijax.evaluate`)."


def model_card(predictor, description):
    """The text of README.md, in Markdown. It names no case, as names may be those of patients.

    Args:
      predictor: ``Predictor`` of the run.
      description: what is in ``bundle.json``, without the checksums.
    """
    run, config = predictor.run, predictor.run.config
    splits = read_splits(run.folder / "splits.json")
    slices, classes, channels = (description[key] for key in ("slices", "classes", "channels"))
    what = "2-D slices" if slices["dims"] == 2 else "3-D windows"
    trained = f"method `{config.method.name}`, seed {config.seed}"
    tensors = f"`images` (b, *space, {channels}) to `probs` (b, *space, {len(classes)})"
    return f"""\
# {description["run"]}: {", ".join(classes[1:])}

A U-Net that labels {slices["plane"]} {what} of scans with {channels} channel(s), trained with mijax
{description["mijax"]}: {trained}, step {predictor.step} of {config.steps}.

## Use

```bash
pip install -r requirements.txt
python predict.py --input SCANS --output FOLDER
```

No GPU, no JAX and no mijax are needed; `python predict.py --help` says what `SCANS` may be. The
label maps lie on the grids of the scans, and have the values {_values(classes)}.
They are those of `python -m mijax.predict` up to rounding: where two classes are equally probable
to float32, either may be taken. `Dockerfile` makes an image of this folder; its first lines are the
commands.

| file | |
|---|---|
| `bundle.json` | preprocessing, classes, version, and SHA-256 of the files, checked at each start |
| `model.onnx` | the network: {tensors}, float32 |
| `network.stablehlo` | the same for `jax.export` |
| `predict.py`, `mijax_bundle/` | from a scan to a label map |

## Training data

| | |
|---|---|
| data | {data_name(config)} (`{config.data.source.name}`) |
| labelled cases | {len(splits.labelled)} |
| unlabelled cases | {len(splits.unlabelled)} |
| validation, test cases | {len(splits.validation)}, {len(splits.test)} |
| seen as | {what} {_spacing(slices)}, intensities: {_intensity(slices)} |

## Scores

{_scores(run, predictor.step)}

## Intended use and limits

For research, on scans as those it was trained on: the same modality, protocol, part of the body
and kind of patient, with intensities in the same units. It is no medical device, and nobody has
shown that it is fit for a diagnosis or a treatment: look at a label map before you use it. The
scores are of few cases of the same source; on scans of another scanner or hospital expect lower
ones. It does not notice a scan that is nothing like its training data, and labels that as well.
"""


def _values(classes):
    return ", ".join(f"{value} {name}" for value, name in enumerate(classes))


def _spacing(slices):
    if slices["fit"] == "resize":
        return f"resized to {times(slices['size'])} pixels"
    where = {"in the plane": slices["spacing"], "across it": slices["depth_spacing"]}
    found = [f"{mm} mm {name}" for name, mm in where.items() if mm]
    return "at " + (" and ".join(found) or "their own spacing")


def _intensity(slices):
    detail = {"window": slices["window"], "percentile": slices["percentiles"]}
    name = slices["intensity"]
    found = f"{name} {tuple(detail[name])}" if name in detail else name
    return found + (", bias field corrected" if slices["bias_correction"] else "")


def _scores(run, step):
    """Those of the checkpoint, as ``mijax.evaluate`` prints them."""
    if not (run.folder / "scores.json").exists():
        return _UNSCORED
    scores = read_json(run.folder / "scores.json")
    here = {name: entry for name, entry in scores.items() if entry["step"] == step}
    return f"```\n{table(here)}\n```" if here else _UNSCORED
