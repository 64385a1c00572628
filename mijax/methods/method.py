"""The records that every training method is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# Titles of the two rows that reports hold the others against.
FULL, PARTIAL = "Full supervision", "Partial supervision"


class Row(NamedTuple):
    """A row that a method has in tables; a module has its rows by name in ``ROWS``.

    Of several a run is the first whose values its configuration has.

    Attributes:
      title: of the row.
      place: rows stand in the order of these numbers: 0 the baselines, 10 what Table 1 compares
        with, 20 its two halves of ours, 30 other neighbours, 40 ours, 50 what followed.
      values: of the configuration, by dotted key, that make this row of the method.
      table1: whether it is one of the eight of Table 1 (Peng et al., MIDL 2020).
      ours: whether it is the row that a report tests against the others.
    """

    title: str
    place: float = 99
    values: dict[str, Any] = {}  # noqa: RUF012, which no one changes
    table1: bool = False
    ours: bool = False


class Quantity(NamedTuple):
    """What a number is that a method logs or measures; a module has its own in ``QUANTITIES``.

    Attributes:
      title: in words.
      unit: of it, or "".
      meaning: of a measure of pre-training, what is said of it below the table; names of
        hyperparameters in braces become their values.
    """

    title: str
    unit: str = ""
    meaning: str = ""

    @property
    def heading(self):
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


class Batch(NamedTuple):
    """Augmented slices of one step; what a method did not ask for is None.

    Attributes:
      image: (b, *space, c) labelled images: slices (h, w), or volumes (d, h, w).
      label: (b, *space) their labels; those of pixels without one are k or above, and what they
        mean ``label_loss`` knows.
      unlabelled: (u, *space, c) images.
      position: (u,) where in its volume each of them lies, from 0 to 1.
      pseudo_label: (u, *space) their pseudo-labels, of ``Rounds.pseudo_labels``.
    """

    image: jax.Array | None
    label: jax.Array | None
    unlabelled: jax.Array | None
    position: jax.Array | None = None
    pseudo_label: jax.Array | None = None


class Output(NamedTuple):
    """What ``forward`` gives: logits (b, h, w, k), features by name, new running statistics.

    Of several streams the running statistics of the first output are those to go on with.
    """

    logits: jax.Array
    features: dict[str, jax.Array]
    batch_stats: Any


class Aux(NamedTuple):
    """What a loss gives besides its value: new running statistics, and scalars to log."""

    batch_stats: Any
    logs: dict[str, jax.Array]


class Start(NamedTuple):
    """What a method begins with.

    Attributes:
      network, batch_stats: of the network.
      features: shape (1, *space, c) of each feature of an image, by name.
      unlabelled_shape: (m, *space) of all unlabelled slices.
      another: ``key -> network``, another network to begin with: drawn anew, or, where the run
        begins with the weights of another (``config.init_from``), those with a classifier
        drawn anew.
    """

    network: Any
    batch_stats: Any
    features: dict[str, tuple[int, ...]]
    unlabelled_shape: tuple[int, ...]
    another: Callable


class Unlabelled(NamedTuple):
    """All unlabelled slices of a run.

    Attributes:
      image: (m, *space, c).
      position: (m,) where in its volume a slice lies, from 0, the first, to 1, the last.
      volume: (m,) index of its volume.
    """

    image: jax.Array
    position: jax.Array
    volume: jax.Array


class Rounds(NamedTuple):
    """Rounds of training, evenly over the steps, before each of which the memory is refreshed.

    Attributes:
      count: of the rounds; the steps before the first are as many as those of each.
      refresh: ``(memory, predict, unlabelled) -> memory``, where ``predict(images) -> probs`` is
        the best network so far and ``unlabelled`` an ``Unlabelled``.
      pseudo_labels: ``memory -> (m, *space)`` labels that go with the unlabelled slices through
        the augmentation.
    """

    count: int
    refresh: Callable
    pseudo_labels: Callable


class Examination(NamedTuple):
    """What takes the place of scores for a method that learns without labels.

    Attributes:
      measures: ``(params, images, *, features, key) -> {name: scalar}``, where
        ``features(network, images)`` runs the network as at test time and gives its features
        by name.
      score: name of the measure that ranks checkpoints, the higher the better.
      clusters: ``(params, images, *, features) -> (b, *space)`` cluster of each pixel, or None.
      count: of the clusters.
    """

    measures: Callable
    score: str
    clusters: Callable | None = None
    count: int = 0


class Method(NamedTuple):
    """A training method as pure functions.

    ``params`` is ``{"network": …, **heads}``, all of it optimised; ``memory`` is whatever
    else the method carries from step to step (a teacher, pseudo-labels): checkpointed, not
    differentiated.

    Attributes:
      loss: ``(params, memory, batch, *, forward, label_loss, step, key) -> (scalar, Aux)``.
        ``forward(network, *images, key) -> [Output]`` runs the network in training mode on one
        or more streams of images, the labelled one first, and gives an ``Output`` a stream. Each
        stream is normalised by its own BatchNorm statistics: with few labelled images a network
        that shares them tells labelled from unlabelled, and answers background to the latter.
        A method may also give it ``shared_statistics=True``, one set over all streams, as the
        release of Peng et al. has it, and ``perturb``, ``(stream, name, feature) -> feature``, of
        what the encoder hands to the decoder in the stream of that number, from 0.
        ``label_loss(logits, labels, *, mask=None)`` is the supervised loss of
        ``config.label_loss``, over the pixels that have a label.
      init: ``(key, start) -> (heads, memory)``, see ``Start``.
      update: ``(memory, params, batch_stats, step) -> memory``, after the optimiser;
        ``step`` counts from 0.
      predictor: ``(params, batch_stats, memory) -> (network, batch_stats)``, what is
        evaluated.
      unlabelled: whether it looks at unlabelled images; others are given none.
      least_unlabelled: how many of them a batch must have; 2 where they are mixed or compared.
      rounds: ``Rounds`` of a method that looks back between them, or None.
      examination: of a method that learns from images alone, labelled cases included; None
        for one that learns to segment.
      doubt: ``{name: mean} -> line``, what goes wrong by a line of the log; "" for nothing. It is
        told once.
    """

    loss: Callable
    init: Callable = lambda key, start: ({}, {})
    update: Callable = lambda memory, params, batch_stats, step: memory
    predictor: Callable = lambda params, batch_stats, memory: (params["network"], batch_stats)
    unlabelled: bool = False
    least_unlabelled: int = 1
    rounds: Rounds | None = None
    examination: Examination | None = None
    doubt: Callable = lambda means: ""
