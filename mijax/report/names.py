"""Names of the rows of a table, and their order: of each method, what its module says."""

from mijax import methods
from mijax.methods import FULL, PARTIAL
from mijax.options import flat


def row_of(config, full=None):
    """The ``methods.Row`` of a run: the first of its method whose values it has.

    Args:
      config: of the run, a dict.
      full: whether it had all labels, whatever the configuration asks for, which may be all of
        few; None to believe that.
    """
    values = dict(flat(config))
    if full is not None:
        values["data.splits.labelled"] = 0 if full else values["data.splits.labelled"] or -1
    for row in methods.rows(config["method"]["name"]).values():
        if all(key in values and values[key] == value for key, value in row.values.items()):
            return row
    return methods.Row(config["method"]["name"])


def name_of(config, full, origin):
    """The title of a run's row and what comes on top: `` + MT``, and its pre-training.

    Args:
      config: of the run, a dict.
      full: see ``row_of``.
      origin: configuration of the run that its weights came from, a dict, or None.
    """
    name = row_of(config, full).title + _on_top(config)
    if origin:
        title = row_of(origin).title
        title = "Supervised" if title in (FULL, PARTIAL) else title  # there are no splits of it
        name += f", pre-trained ({title}{_on_top(origin)})"
    return name


def _on_top(config):
    """`` + MT`` where a Mean Teacher is."""
    return " + MT" * (config["teacher"]["decay"] > 0)
