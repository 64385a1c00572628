"""The smooth drift of intensities that the coils of a scanner leave in MRI, and its removal."""

import numpy as np

from mijax.data.volume import Volume

_SIDE = 48  # voxels an axis keeps, at least, where the field is fitted; it is smooth


def correct_bias(volume: Volume) -> Volume:
    """The volume without its bias field, by N4 with ITK's defaults; each channel by itself.

        image / exp(b),  b a B-spline

    b is fitted to the voxels above Otsu's threshold of a shrunken image. The overall scale may
    change too, so this does not go with an intensity window. It takes seconds a volume: sources
    store the result (``bias_correction`` of ``open_source``), and only a scan that comes from
    no source is corrected on the spot. One thread, so that the same image gives the same bytes
    on every machine.

    Args:
      volume: an MRI as it came.

    Returns:
      The volume with another image, (x, y, z, c) float32.

    Reference: Tustison et al., IEEE Transactions on Medical Imaging 2010.
    """
    image = volume.image
    fields = [_log_field(image[..., c], volume.spacing) for c in range(image.shape[-1])]
    return volume._replace(image=(image / np.exp(np.stack(fields, -1))).astype(np.float32))


def _log_field(values: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(x, y, z) float32: b of one channel."""
    import SimpleITK as sitk  # half a second, and not for every data set

    # N4 needs two voxels along each axis.
    thick = np.pad(values, [(0, int(n == 1)) for n in values.shape], mode="edge")
    image = sitk.GetImageFromArray(np.ascontiguousarray(thick.T, np.float32))
    image.SetSpacing([float(mm) for mm in spacing])
    small = sitk.BinShrink(image, [max(1, n // _SIDE) for n in image.GetSize()])
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.Execute(small, sitk.OtsuThreshold(small, 0, 1))
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    return field[tuple(slice(n) for n in values.shape)]
