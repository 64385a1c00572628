"""Arrays to image files that lie on the grid of another file."""

from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.geometry import check_same_geometry
from mijax.data.formats.imagefile import has_ending, itk_header, read_header, read_image
from mijax.data.formats.nifti import NIFTI, check_nifti, nifti_header
from mijax.data.formats.nrrd import NRRD
from mijax.errors import UserError, lines_of
from mijax.files import in_one_piece


def label_ending(path: Path | Stack) -> str:
    """Ending of a label map of the format family of a scan: ".nii.gz", ".mha" or ".nrrd".

    That of a stack of DICOM slices is NIfTI.
    """
    if isinstance(path, Stack) or has_ending(path, NIFTI):
        return ".nii.gz"
    return ".nrrd" if has_ending(path, NRRD) else ".mha"


def write_image(path: Path, values: np.ndarray, *, reference: Path | Stack) -> None:
    """Writes an image on the grid of another file, compressed, in one piece.

    From NIfTI to NIfTI the header is copied: sform, qform, their codes, voxel sizes, units.
    Only what describes the intensities of the scan is left out, and header extensions, which may
    name its patient.

    Args:
      path: to write, NIfTI or of a format of SimpleITK, by its ending.
      values: (x, y, z), or for NIfTI (x, y, z, k), in the type to be stored.
      reference: image file, or stack of DICOM slices, whose geometry it takes.

    Raises:
      UserError: if it cannot be written there.
    """
    with in_one_piece(path) as part:
        if has_ending(path, NIFTI):
            nib.save(_nifti_like(values, reference), part)
        else:
            _write_by_itk(_itk_like(values, reference), part)


def check_written(path: Path, *, reference: Path | Stack, classes: int | None) -> None:
    """Refuses an image that is not whole, or does not lie on the grid of another file.

    Args:
      path: of the image.
      reference: the other file, of which the header alone is read. That it cannot be is no fault of
        the image.
      classes: number of those that a label map has; None of other images, which are NIfTI and may
        be larger than what is read.

    Raises:
      UserError: what is wrong with the image.
    """
    if classes is None:
        shape, affine = check_nifti(path)
    else:
        values, affine = read_image(path)
        shape = values.shape
        if not (values.ndim == 3 and np.isin(values, np.arange(classes)).all()):
            raise UserError(f"{path}: its values are no label map of {classes} classes")
    try:
        shape_0, affine_0 = read_header(reference)
    except UserError:  # told of by whoever needs the other file
        return
    check_same_geometry(path, shape[:3], affine, reference, shape_0[:3], affine_0)


def _nifti_like(values: np.ndarray, reference: Path | Stack) -> nib.Nifti1Image:
    if not has_ending(reference, NIFTI):
        image = nib.Nifti1Image(values, read_header(reference)[1])
        image.set_qform(image.affine, 1)  # with the code of the sform: scanner coordinates
        image.set_sform(image.affine, 1)
        image.header.set_xyzt_units("mm")
        return image
    header = nifti_header(reference)
    header.set_data_dtype(values.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0  # else viewers show labels in the scan's window
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # An affine that is the header's own leaves sform, qform and their codes as they are.
    return kind(values, header.get_best_affine(), header)


def _write_by_itk(image, part: Path) -> None:
    """Raises OSError where it cannot be written."""
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(part), useCompression=True)
    except RuntimeError as error:
        reason = lines_of(error)[-1].removeprefix("Reason: ")
        raise OSError(reason) from error
    # Of a full disk ITK says nothing where the last bytes fail, which may be all of them.
    try:
        written = sitk.ReadImage(str(part))  # kept, as it owns what is compared
        whole = np.array_equal(*map(sitk.GetArrayViewFromImage, (written, image)))
    except RuntimeError:
        whole = False
    if not whole:
        raise OSError("not all of it was written")


def _itk_like(values: np.ndarray, reference: Path):
    import SimpleITK as sitk

    header = itk_header(reference)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetOrigin(header.GetOrigin())
    spacing = np.array(header.GetSpacing())  # a MetaImage may have negative ones, ITK's images not
    image.SetSpacing(abs(spacing).tolist())
    direction = np.reshape(header.GetDirection(), (3, 3)) * np.sign(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image
