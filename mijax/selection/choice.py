"""Which patients stand for the others, and how well they do: functions of distances alone.

``distances`` are (p, p) between all patients, ``given`` those that have labels already and
``chosen`` others, as indices. The coverage of some patients is the mean over all p of the distance
to the nearest of them: the lower, the better.
"""

import numpy as np

_AHEAD = 1e-9  # a change counts that is better by this part


def pairwise(embedding):
    """Euclidean distances (p, p) between the rows of (p, d)."""
    squares = np.square(embedding).sum(1)
    products = embedding @ embedding.T
    found = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    np.fill_diagonal(found, 0)
    return found


def coverage(distances, chosen):
    """Mean distance of a patient to its nearest of ``chosen``, at least one."""
    return float(distances[:, list(chosen)].min(1).mean())


def representatives(distances, count, *, given=()):
    """``count`` patients that, with those given, cover all best: k-medoids.

    Greedy, then exchanged one for one while that helps (PAM, Kaufman and Rousseeuw, 1987). Of one
    patient it is the best; of more no single exchange is better. In the order in which each adds
    most to those before it.
    """
    chosen = _greedy(distances, range(len(distances)), count, given)
    while True:
        covered = coverage(distances, [*given, *chosen])
        best = min(_exchanges(distances, chosen, given), default=(covered, None))
        if best[0] >= covered * (1 - _AHEAD):
            return _greedy(distances, chosen, count, given)
        chosen = best[1]


def disputed(distances, disagreement, count, *, given):
    """``count`` patients, each of the most disagreement times distance to those before and given.

    Args:
      distances: (p, p).
      disagreement: (p,), from 0 on.
      count: of patients.
      given: at least one.
    """
    chosen = []
    for _ in range(count):
        gain = disagreement * distances[:, [*given, *chosen]].min(1)
        gain[[*given, *chosen]] = -1
        chosen.append(int(gain.argmax()))
    return chosen


def random_coverages(distances, count, *, given, draws=1000):
    """Coverage (draws,) of the patients given and ``count`` others at random."""
    others = np.setdiff1d(np.arange(len(distances)), given)
    random = np.random.default_rng(0)
    picks = (random.choice(others, count, replace=False) for _ in range(draws))
    return np.array([coverage(distances, [*given, *pick]) for pick in picks])


def followers(distances, chosen, *, given):
    """{patient: those that are nearest to it, nearest first, itself left out}, of the chosen."""
    centres = [*given, *chosen]
    nearest = np.array(centres)[distances[:, centres].argmin(1)]
    nearest[centres] = -1
    return {
        c: [int(p) for p in distances[c].argsort(kind="stable") if nearest[p] == c] for c in chosen
    }


def _greedy(distances, candidates, count, given):
    """Of the candidates, by how much each improves the coverage of those before it and given."""
    nearest = distances[:, list(given)].min(1, initial=np.inf)
    left, chosen = [c for c in candidates if c not in set(given)], []
    for _ in range(count):
        sums = np.minimum(nearest[:, None], distances[:, left]).sum(0)
        chosen.append(int(left.pop(int(sums.argmin()))))
        nearest = np.minimum(nearest, distances[:, chosen[-1]])
    return chosen


def _exchanges(distances, chosen, given):
    """Yields for each of the chosen the best other one in its place: (coverage, all chosen)."""
    others = np.setdiff1d(np.arange(len(distances)), [*given, *chosen])
    for i in range(len(chosen) if len(others) else 0):
        kept = [*chosen[:i], *chosen[i + 1 :]]
        nearest = distances[:, [*given, *kept]].min(1, initial=np.inf)
        means = np.minimum(nearest[:, None], distances[:, others]).mean(0)
        best = int(means.argmin())
        yield float(means[best]), [*kept, int(others[best])]
