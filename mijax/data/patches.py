"""What the network sees of a volume, as ``config.data.patches`` says, or who has its values."""

from mijax.data.bias import correct_bias
from mijax.data.slices import slice_shape, to_slices


def slice_volume(volume, slices, *, stored=True, multiple=None, patch=None, middle=False):
    """``data.to_slices`` of a volume as ``config.data.patches`` says.

    Args:
      volume: ``data.Volume``.
      slices: ``config.data.patches``.
      stored: whether it comes from ``open_data``, which stores images without their bias field;
        that of a new scan is corrected here, which takes seconds.
      multiple: as there.
      patch: (d, h, w) of the windows that a 3-D image is predicted in. It is made no larger than
        they are where it shows nothing; unless all are resized to one size.
      middle: of what exceeds ``slices.size``, or ``patch``, the middle, so that images of all
        volumes are of one size.
    """
    if slices.bias_correction and not stored:
        volume = correct_bias(volume)
    options = slice_options(slices)
    if patch is not None and slices.fit != "resize":
        options, multiple = options | {"size": patch, "fit": "pad"}, 1
    if middle and slices.fit != "resize":
        options["fit"] = "crop"
    return to_slices(volume, **options, multiple=multiple)


def check_shape(volume, slices):
    """Refuses a volume of which ``slice_volume`` would make far too many pixels.

    Raises:
      UserError: see ``slices.slice_shape``.
    """
    names = ("spacing", "plane", "dims", "depth_spacing")
    options = {name: getattr(slices, name) for name in names}
    slice_shape(volume.name, volume.image.shape, volume.affine, **options)


def voxel_size(slices):
    """Millimetres of a voxel of 3-D images along each axis, or None where it differs."""
    resized = slices.fit == "resize"  # after the spacing
    if slices.dims == 2 or resized or not (slices.depth_spacing and slices.spacing):
        return None
    return slices.depth_spacing, slices.spacing, slices.spacing


def slice_options(slices):
    """``config.data.patches`` as keywords of ``data.to_slices``."""
    return {
        "size": slices.size,
        "fit": slices.fit,
        "spacing": slices.spacing,
        "plane": slices.plane,
        "intensity": slices.window if slices.intensity == "window" else slices.intensity,
        "percentiles": slices.percentiles,
        "dims": slices.dims,
        "depth_spacing": slices.depth_spacing,
    }
