"""A TFDS builder that needs no TensorFlow: volumes as they came, in ArrayRecord.

Every case is a TFDS split of its own. TFDS keeps a split in memory while it writes it and, above
1 GiB, spills it to disk through TensorFlow; a case a split keeps both away and makes a case
addressable by name.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from mijax.data.volume import Recipe, Volume, check_size
from mijax.errors import UserError
from mijax.files import remove_abandoned
from mijax.progress import Progress

_TOLD = 20  # bad cases at most that are looked for before they are told of
_log = logging.getLogger("mijax")


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: TFDS would look these data sets up in its own and leave a temporary folder."""


class VolumeBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes what a recipe reads, a record a case."""

    VERSION = tfds.core.Version("1.2.0")  # raised where the same files are read otherwise

    def __init__(self, *, recipe: Recipe, data_dir: Path):
        self.name = recipe.builder  # TFDS would take that of the class
        self._recipe = recipe
        super().__init__(data_dir=data_dir)
        self.progress = Progress(f"preparing {self.name}", len(recipe.cases))

    def _info(self) -> tfds.core.DatasetInfo:
        bytes_ = tfds.features.Encoding.BYTES
        tensor = tfds.features.Tensor
        features = {
            "image": tensor(shape=(None,) * 4, dtype=np.float32, encoding=bytes_),
            "label": tensor(shape=(None,) * 3, dtype=np.uint8, encoding=bytes_),
            "labelled": tfds.features.Scalar(dtype=np.bool_),
            "affine": tensor(shape=(4, 4), dtype=np.float64, encoding=bytes_),
            "case": tfds.features.Text(),
        }
        return _LocalInfo(
            builder=self,
            description="Volumes, read by mijax.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            split_name(index): self._generate_examples(index)
            for index in range(len(self._recipe.cases))
        }

    def _generate_examples(self, index: int) -> Iterator[tuple[str, dict]]:
        case = self._recipe.cases[index]
        self.progress(index)
        try:
            volume = self._recipe.finish(self._recipe.read(case.name))
        except UserError as error:
            raise self._with_others(index, error) from error
        label = volume.label
        if label is None:  # zeros, as TFDS cannot read an array of fewer bytes than axes back
            label = np.zeros(volume.image.shape[:3], np.uint8)
        yield (
            case.name,
            {
                "image": np.ascontiguousarray(volume.image),
                "label": np.ascontiguousarray(label),
                "labelled": case.labelled,
                "affine": volume.affine,
                "case": case.name,
            },
        )

    def check_headers(self) -> None:
        """Refuses what headers alone show to be bad, in seconds.

        Raises:
          UserError: a bad header, or a case that no record holds.
        """
        found, cases = [], self._recipe.cases
        for case in cases:
            try:
                check_size(case.name, self._recipe.geometry(case.name))
            except UserError as error:
                found.append(error)
        if found:
            raise _refusal(found[:_TOLD], len(cases))

    def _with_others(self, index: int, error: UserError) -> UserError:
        """The error of a case, or, where cases after it are bad too, one for all of them.

        So that a folder of many bad files is mended in one go.
        """
        found, cases = [error], self._recipe.cases
        for later in range(index + 1, len(cases)):
            if len(found) == _TOLD:
                break
            self.progress(later)
            try:
                self._recipe.read(cases[later].name)
            except UserError as other:
                found.append(other)
        self.progress.end()
        return _refusal(found, len(cases))


def split_name(index: int) -> str:
    """The TFDS split that holds the case of this index."""
    return f"case{index:05d}"


def prepare(recipe: Recipe, cache: Path) -> tfds.core.DatasetBuilder:
    """The builder of a recipe, written under the cache unless it already is.

    TFDS writes into a temporary folder and renames it at the end, so a failure leaves nothing
    that a later run would take for a data set.

    Raises:
      UserError: a file of the data set is bad, or the cache cannot be written.
    """
    data_dir = cache / recipe.key
    builder = VolumeBuilder(recipe=recipe, data_dir=data_dir)
    if builder.data_path.is_dir():
        return builder
    builder.check_headers()
    # What TFDS had begun and a kill kept it from removing; a path of it has no times.
    remove_abandoned(Path(builder.data_path).parent.glob("incomplete.*"))
    try:
        with _quiet(builder):
            builder.download_and_prepare(file_format="array_record")
    except OSError as error:
        other = VolumeBuilder(recipe=recipe, data_dir=data_dir)
        if other.data_path.is_dir():  # another process wrote it meanwhile
            return other
        raise UserError(
            f"{data_dir}: cannot write the prepared data set ({error.strerror or error}); "
            "free space there or choose another cache"
        ) from error
    return builder


def _refusal(found: Sequence[UserError], total: int) -> UserError:
    """The one error there is; or one for several, each of which is logged first."""
    if len(found) == 1:
        return found[0]
    for error in found:
        _log.error("%s", error)
    least = "at least " if len(found) == _TOLD else ""
    return UserError(
        f"{least}{len(found)} of {total} cases cannot be used, for the reasons above; repair their "
        "files or take them away"
    )


def prepared(recipe: Recipe, cache: Path) -> Recipe:
    """The same recipe, reading from the prepared data set, see ``prepare``."""
    builder = prepare(recipe, cache)
    index = {case.name: i for i, case in enumerate(recipe.cases)}
    return recipe._replace(read=lambda name: read_volume(builder, index[name]))


def read_volume(builder: tfds.core.DatasetBuilder, index: int) -> Volume:
    """The volume of the case of this index, back from its record.

    Raises:
      UserError: the prepared data set is damaged.
    """
    try:
        (record,) = builder.as_data_source(split=split_name(index))
    except Exception as error:  # array_record raises whatever its C++ side meets
        raise UserError(
            f"{builder.data_path}: the prepared data set is damaged; delete this folder and rerun"
        ) from error
    return Volume(
        name=record["case"].decode(),
        image=np.array(record["image"]),
        label=np.array(record["label"]) if record["labelled"] else None,
        affine=np.array(record["affine"]),
    )


@contextlib.contextmanager
def _quiet(builder: VolumeBuilder):
    """Hides TFDS's own bars (one a split, which is one a case) and ends the line of ours."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        builder.progress.end()
