"""Names of the rows of a table, and their order."""

import ml_collections

FULL, PARTIAL = "Full supervision", "Partial supervision"
ORDER = (  # of Table 1 of the paper; its neighbours go before Ours, the systems behind
    FULL, PARTIAL, "Entropy min.", "Mean Teacher", "Mutual information", "Consistency reg.",
    "UAMT", "ICT", "Cross pseudo supervision", "FixMatch", "UniMatch", "Copy-paste",
    "Alternate teachers", "Ours (MSE)", "Ours (KL)", "Global + local MI", "Local contrast",
    "Boundary-aware IIC", "Mixing without MI", "Mixed MI",
)  # fmt: skip
_METHODS = {
    "supervised": "Supervised",  # of what a run was pre-trained by
    "entropy": "Entropy min.",
    "mean_teacher": "Mean Teacher",
    "uamt": "UAMT",
    "ict": "ICT",
    "cross_pseudo": "Cross pseudo supervision",
    "fixmatch": "FixMatch",
    "unimatch": "UniMatch",
    "copy_paste": "Copy-paste",
    "alternate_teachers": "Alternate teachers",
    "global_local_mi": "Global + local MI",
    "local_contrast": "Local contrast",
    "boundary_iic": "Boundary-aware IIC",
    "position_contrast": "Position contrast",
}


def kind_of(config, splits):
    """The name of what a run trained with: a row of Table 1, or its method.

    Full supervision is where no case is unlabelled, whatever the configuration asks for: 0
    labelled cases are all labels that there are, which may be few.
    """
    if config.method.name == "supervised":
        return PARTIAL if splits.unlabelled else FULL
    return _of_method(config)


def name_of(config, splits, origin):
    """The kind of a run and what comes on top: `` + MT``, and what it was pre-trained by.

    Args:
      config: of the run.
      splits: ``data.Splits`` of the run.
      origin: configuration, a dict, of the run that its weights came from, or None.
    """
    name = kind_of(config, splits)
    if has_teacher(config):
        name += " + MT"
    if origin:
        config = ml_collections.ConfigDict(origin)
        name += f", pre-trained ({_of_method(config)}{' + MT' * has_teacher(config)})"
    return name


def place_of(kind):
    """Where a kind stands among the rows."""
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def has_teacher(config):
    """Whether a Mean Teacher is on top of the method; runs of before there was one have none."""
    return config.get("teacher", {}).get("decay", 0) > 0


def _of_method(config):
    method = config.method
    if method.name == "mixed_mi":
        return "Mixed MI" if method.mi_weight else "Mixing without MI"
    if method.name != "local_mi":
        return _METHODS.get(method.name, method.name)
    if not method.consistency_weight:
        return "Mutual information"
    if not method.mi_weight:
        return "Consistency reg."
    return f"Ours ({method.consistency.upper()})"
