"""Names of the rows of a table, and their order: of each method, what its module says."""

from mijax import methods
from mijax.methods import FULL, PARTIAL
from mijax.options import flat


def row_of(config, splits=None):
    """The ``methods.Row`` of a run: the first of its method whose values it has.

    No labelled cases, which asks for all labels there are, counts where no case is unlabelled,
    whatever the configuration asks for: they may be few.

    Args:
      config: of the run, a dict.
      splits: ``data.Splits`` of the run; without them its own configuration is believed.
    """
    values = dict(flat(config))
    if splits:
        values["data.splits.labelled"] = len(splits.labelled) if splits.unlabelled else 0
    for row in methods.rows(config["method"]["name"]).values():
        if all(key in values and values[key] == value for key, value in row.values.items()):
            return row
    return methods.Row(config["method"]["name"])


def name_of(config, splits, origin):
    """The title of a run's row and what comes on top: `` + MT``, and its pre-training.

    Args:
      config: of the run, a dict.
      splits: ``data.Splits`` of the run.
      origin: configuration of the run that its weights came from, a dict, or None.
    """
    name = row_of(config, splits).title + _on_top(config)
    if origin:
        title = row_of(origin).title
        title = "Supervised" if title in (FULL, PARTIAL) else title  # there are no splits of it
        name += f", pre-trained ({title}{_on_top(origin)})"
    return name


def _on_top(config):
    """`` + MT`` where a Mean Teacher is."""
    return " + MT" * (config["teacher"]["decay"] > 0)
