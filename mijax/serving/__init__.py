"""A trained run over HTTP, for viewers: the part of MONAI Label's interface that segments."""
