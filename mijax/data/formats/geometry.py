"""Whether two image files lie on one grid."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.imagefile import affines_of
from mijax.data.volume import spacing_of
from mijax.errors import UserError, tell

_ROUNDING = 1e-3  # of a voxel; further apart is worth a line
_SAME = 0.05  # of a voxel; further apart is another grid
_SHEAR = 1.0  # degrees that two axes may lack of a right angle


def check_same_geometry(
    path: Path, shape, affine, reference: Path | Stack, shape_0, affine_0
) -> None:
    """Refuses two files whose voxels do not lie in the same places, to a few per cent of a voxel.

    A NIfTI file has two forms, sform and qform, which differ where only one of them was
    registered. Voxels are the same where any form of the one agrees with any form of the other.
    Beyond rounding, and where other forms agree than those that count, that is told (``Notice``).

    Args:
      path: a sound image file.
      shape: of its array.
      affine: as ``read_image`` gives it.
      reference: the file, or the stack of DICOM slices, that it has to fit.
      shape_0, affine_0: those of the reference.

    Raises:
      UserError: names both files and the first difference.
    """
    other = f"{reference.parent.name}/{reference.name}"
    if tuple(shape) != tuple(shape_0):
        raise UserError(
            f"{path}: shape {tuple(shape)}, but {other} has {tuple(shape_0)}; resample one of them "
            "onto the other"
        )
    apart, mm = _distance(affine, affine_0, shape[:3])
    if apart <= _ROUNDING:
        return
    if apart <= _SAME:
        tell(
            f"{path}: affine differs from that of {other} by up to {mm:.4g} mm, {apart:.1%} of a "
            "voxel; taken as the same grid"
        )
        return
    forms, forms_0 = affines_of(path), affines_of(reference)
    best, form, form_0 = min(
        (_distance(forms[a], forms_0[b], shape[:3])[0], a, b)
        for a, b in itertools.product(forms, forms_0)
    )
    if best > _SAME:
        raise UserError(
            f"{path}: affine differs from that of {other} by up to {mm:.4g} mm; if a viewer shows "
            "them in one place, resample one onto the other, if not, give one the other's header"
        )
    tell(
        f"{path}: its {form} agrees with the {form_0} of {other}, but its {next(iter(forms))} "
        f"differs from the {next(iter(forms_0))} there by up to {mm:.4g} mm; taken as the same "
        "voxels"
    )


def tell_of_doubt(path: Path, shape, *, labelled: bool = False) -> None:
    """Tells (``Notice``) where the header of a sound image leaves open which side is left.

    Args:
      path: an image file.
      shape: of its array.
      labelled: whether a label lies on the same voxels: of two forms that only turn or move them
        nothing is said then.
    """
    forms = affines_of(path)
    (first, affine), *others = forms.items()
    if first == "pixdim":
        axes = "".join(nib.aff2axcodes(affine))
        tell(f"{path}: neither sform nor qform; its axes are taken as {axes}, which is a guess")
        return
    for other, affine_0 in others:
        apart, mm = _distance(affine, affine_0, shape[:3])
        if apart > _SAME and not (labelled and _same_voxels(affine, affine_0)):
            tell(f"{path}: {first} and {other} differ by up to {mm:.4g} mm; the {first} is taken")


def tell_of_shear(path: Path, affine) -> None:
    """Tells (``Notice``) where the axes of an image are not at right angles."""
    axes = affine[:3, :3] / spacing_of(affine)
    degrees = np.degrees(np.arcsin(abs(np.triu(axes.T @ axes, 1)).max()))
    if degrees > _SHEAR:
        tell(
            f"{path}: axes sheared by {degrees:.1f}°; slices and distances are as of right angles, "
            "so resample it to a straight grid"
        )


def _same_voxels(affine, affine_0) -> bool:
    """Whether two affines make voxels of one size, to a hundredth, and agree in what is left."""
    sizes = spacing_of(affine), spacing_of(affine_0)
    return nib.aff2axcodes(affine) == nib.aff2axcodes(affine_0) and np.allclose(*sizes, rtol=0.01)


def _distance(affine, affine_0, shape) -> tuple[float, float]:
    """How far apart two affines put any voxel: in voxels along an axis, and in millimetres."""
    ends = [(0, n - 1) for n in shape]
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], float).T
    moved = ((affine - affine_0) @ corners)[:3]
    in_voxels = np.linalg.solve(affine_0[:3, :3], moved)
    return float(np.abs(in_voxels).max()), float(np.linalg.norm(moved, axis=0).max())
