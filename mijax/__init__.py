"""Semi-supervised segmentation of medical images by mutual information, in JAX."""

import sys

from mijax.errors import tell_missing

__version__ = "0.1.0"

if (sys.argv or [""])[0].rpartition("/")[2] in ("-m", "mijax"):  # a command, before its imports
    sys.excepthook = tell_missing
