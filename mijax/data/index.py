"""A data set by name: its cases found, prepared once, then read case by case."""

import inspect
from pathlib import Path

from mijax.data.annotation import Annotation
from mijax.data.bias import correct_bias
from mijax.data.sources.acdc import acdc_recipe
from mijax.data.sources.arrays import arrays_recipe
from mijax.data.sources.folder import folder_recipe
from mijax.data.sources.phantom import phantom_recipe
from mijax.data.sources.promise12 import promise12_recipe
from mijax.data.sources.spleen import fetch_spleen
from mijax.data.volume import Case, Recipe, Volume
from mijax.errors import UserError

_OF_ALL = {"directory", "cache", "follow_links"}  # what every recipe is given
_MEAN = "mean"


class Source:
    """A prepared data set with random access by case name.

    Attributes:
      classes: names; the index is the label value and the first is the background.
      channels: of every image.
      cases: all cases, sorted by name.
      undrawn: the different ``Volume.undrawn`` of its volumes but ().
    """

    def __init__(self, recipe: Recipe, annotation: Annotation | None = None):
        """What there is of a recipe that is prepared, and what of its labels counts."""
        annotation = Annotation({}) if annotation is None else annotation
        self.classes = recipe.classes
        self.channels = recipe.channels
        self.cases = recipe.cases
        self._names = {case.name for case in self.cases}
        self.undrawn = annotation.undrawn(recipe.classes)
        self._annotation = annotation
        self._read = recipe.read

    def volume(self, name: str) -> Volume:
        """One volume, read from the prepared data set.

        Raises:
          UserError: there is no case of this name, or its label is not as the annotation says.
        """
        if name not in self._names:
            raise UserError(f"no case {name} among the {len(self.cases)} cases of this data set")
        return self._annotation.restrict(self._read(name), self.classes)


def index(
    name: str,
    *,
    directory: str,
    cache: str,
    bias_correction: bool = False,
    follow_links: bool = False,
    **options,
) -> Recipe:
    """Finds the cases of a data set; no voxel is read, which may take long.

    Args:
      name: "msd", "nnunet", "folder" (tells which of the two), "acdc", "promise12", "spleen",
        "phantom" or "arrays", which is read as it is.
      directory: the folder of the data set. For "spleen" it may be empty: then MSD task 9 is
        downloaded. "phantom" has none and ignores it. For "arrays" it is the .npz file.
      cache: where prepared data sets (and downloads) go.
      bias_correction: whether the images are stored as ``correct_bias`` leaves them; with and
        without are two prepared data sets, side by side.
      follow_links: whether files of the folder may be links to files outside it.
      **options: "msd", "nnunet", "folder": ``patient_pattern``, ``test_images``; "acdc",
        "promise12": ``testing``; "spleen": ``patient_pattern``; "phantom": ``seed``,
        ``patients``, ``shape``.

    Raises:
      UserError: an unknown name or option, a bad folder, no network, a class called "mean".
    """
    recipe = _recipe(
        name, directory, Path(cache).expanduser(), follow_links=follow_links, **options
    )
    if _MEAN in recipe.classes:
        raise UserError(
            f'{directory}: a class is called "{_MEAN}", as tables call the mean over classes; '
            "rename it"
        )
    return _without_bias(recipe) if bias_correction else recipe


def prepare(recipe: Recipe, *, cache: str, annotation: Annotation | None = None) -> Source:
    """The data set that an index found, prepared under the cache where that was not done yet.

    A folder whose files changed since is prepared anew.

    Args:
      recipe: what ``index`` found.
      cache: where prepared data sets go.
      annotation: which part of the labels counts; None for all of them. What is prepared does
        not depend on it.

    Raises:
      UserError: a bad file, or a cache that cannot be written.
    """
    if recipe.builder is None:
        read = recipe._replace(read=lambda name: recipe.finish(recipe.read(name)))
        return Source(read, annotation)

    from mijax.data.store import prepared  # TFDS takes a second to import

    return Source(prepared(recipe, Path(cache).expanduser()), annotation)


def open_source(name: str, *, directory: str, cache: str, **options) -> Source:
    """Both in one: finds the cases of a data set and prepares it; see ``index``."""
    return prepare(index(name, directory=directory, cache=cache, **options), cache=cache)


def list_cases(name: str, *, directory: str, cache: str, **options) -> tuple[Case, ...] | None:
    """The cases of a data set, sorted by name, without opening a file.

    Args:
      name, directory, cache, **options: see ``index``.

    Returns:
      The cases; None for "spleen" without a directory: they are not downloaded for this, and
      all of them are labelled.

    Raises:
      UserError: an unknown name or option, or a bad folder.
    """
    if name == "spleen" and not directory:
        return None
    options.pop("bias_correction", None)
    return _recipe(name, directory, Path(cache).expanduser(), **options).cases


def _recipe(
    name: str, directory: str, cache: Path, *, follow_links: bool = False, **options
) -> Recipe:
    if name not in _RECIPES:
        raise UserError(f"data source {name!r} is unknown; there are {', '.join(sorted(_RECIPES))}")
    parameters = inspect.signature(_RECIPES[name]).parameters
    known = set(parameters) - _OF_ALL
    takes_any = inspect.Parameter.VAR_KEYWORD in {p.kind for p in parameters.values()}
    for option in sorted(() if takes_any else options.keys() - known):
        raise UserError(f"data source {name!r} has no option {option!r}, only {sorted(known)}")
    return _RECIPES[name](directory, cache, follow_links=follow_links, **options)


def _without_bias(recipe: Recipe) -> Recipe:
    return recipe._replace(key=f"{recipe.key}-n4", finish=correct_bias)


def _folder(kind: str):
    def recipe(
        directory, cache, *, follow_links, patient_pattern: str = "", test_images: bool = True
    ) -> Recipe:
        return folder_recipe(
            directory,
            kind=kind,
            patient_pattern=patient_pattern,
            test_images=test_images,
            follow_links=follow_links,
        )

    return recipe


def _acdc(directory, cache, *, follow_links, testing: bool = False) -> Recipe:
    return acdc_recipe(directory, testing=testing, follow_links=follow_links)


def _arrays(directory, cache, **settled) -> Recipe:
    # What such a file holds was settled when it was written, by the options of its first source.
    return arrays_recipe(directory)


def _promise12(directory, cache, *, follow_links, testing: bool = False) -> Recipe:
    return promise12_recipe(directory, testing=testing, follow_links=follow_links)


def _spleen(directory, cache, *, follow_links, patient_pattern: str = "") -> Recipe:
    # The 41 annotated volumes, as the paper; the 20 of imagesTs are not part of its protocol.
    return folder_recipe(
        directory or str(fetch_spleen(cache)),
        kind="msd",
        patient_pattern=patient_pattern,
        test_images=False,
        follow_links=follow_links,
    )


def _phantom(
    directory, cache, *, follow_links, seed: int = 0, patients: int = 24, shape=(64, 64, 12)
) -> Recipe:
    return phantom_recipe(seed=seed, patients=patients, shape=tuple(shape))


_RECIPES = {
    "acdc": _acdc,
    "arrays": _arrays,
    "folder": _folder("folder"),
    "msd": _folder("msd"),
    "nnunet": _folder("nnunet"),
    "phantom": _phantom,
    "promise12": _promise12,
    "spleen": _spleen,
}
