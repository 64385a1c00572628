"""What shows only when volumes are prepared."""

import numpy as np
import pytest
from damage import BOMB, NOISE, PACKED
from folders import image_values, write_msd, write_nnunet

from mijax.data import Volume, open_source, to_slices
from mijax.errors import UserError


@pytest.mark.parametrize("fit", ["pad", "crop", "resize"])
def test_voxels_of_ten_metres_in_slices_of_millimetres(refused, fit):
    volume = Volume("a", image_values(0)[..., None], None, np.diag([1e4, 1e4, 1, 1]))
    options = {"size": 8, "plane": "axial", "intensity": "zscore"}
    refused(
        lambda: to_slices(volume, fit=fit, spacing=1.0, **options),
        "case a: ",
        "data.patches.spacing",
    )


@pytest.mark.parametrize(
    "content",
    [NOISE, PACKED[:-9], BOMB],
    ids=["noise", "cut", "bomb behind"],  # a gzip stream holds the time
)
@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_nothing_half_prepared_stays(tmp_path, refused, layout, content):
    """The last of the cases is bad, so that those before it were already being written."""
    root = (write_msd if layout == "msd" else write_nnunet)(tmp_path / "set")
    name = {"msd": "imagesTs/test_0.nii.gz", "nnunet": "labelsTr/c1.nii.gz"}[layout]
    (root / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        open_source(layout, directory=str(root), cache=str(tmp_path / "cache"))
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if not path.is_dir()]
