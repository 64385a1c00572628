"""What benchmarks.select found: which score of a draw goes with its DSC, and what choices reach."""

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2

from mijax.runs.source import open_data, slice_volume
from mijax.selection.choice import coverage, pairwise, representatives
from mijax.selection.embedding import describe, standardised

NEIGHBOURS = 20  # of TypiClust
_PERMUTATIONS = 10_000


def embeddings(config, scans, runs=()):
    """{name: (p, d)} of the patients of ``{patient: case names}``.

    The plain descriptor, each of its blocks alone, and the features of each run.
    """
    source, rows = open_data(config), {}
    for name in (n for names in scans.values() for n in names):
        volume = source.volume(name)
        image = slice_volume(volume._replace(label=None), config.data.patches, multiple=1).image
        rows[name] = describe(image, np.multiply(volume.image.shape[:3], volume.spacing))
    found = _by_patient(rows, scans)
    blocks = {block: [{block: row[block]} for row in found] for block in found[0]}
    kinds = {"descriptor": found, **blocks}
    for run in runs:
        from mijax.inference import Predictor
        from mijax.selection.network import features

        volumes = (source.volume(n) for names in scans.values() for n in names)
        kinds[str(run)] = _by_patient(
            dict(zip(rows, features(Predictor(run), volumes), strict=True)), scans
        )
    return {name: standardised(of_kind) for name, of_kind in kinds.items()}


def _by_patient(rows, scans):
    return [
        {block: np.mean([rows[n][block] for n in names], axis=0) for block in rows[names[0]]}
        for names in scans.values()
    ]


# What chooses, and what a choice maximises ------------------------------------------------


def k_medoids(embedding, count):
    """The tool's own."""
    return representatives(pairwise(embedding), count)


def k_centre(embedding, count):
    """Greedy: the medoid, then always the farthest (Sener and Savarese, ICLR 2018)."""
    distances = pairwise(embedding)
    chosen = representatives(distances, 1)
    while len(chosen) < count:
        chosen.append(int(distances[:, chosen].min(1).argmax()))
    return chosen


def typical(embedding, count):
    """Of each of ``count`` clusters of k-means the most typical (Hacohen et al., ICML 2022)."""
    _, cluster = kmeans2(embedding, count, minit="++", seed=0, iter=100)
    scores = typicality(pairwise(embedding))
    return [int(np.where(cluster == c, scores, -1).argmax()) for c in range(count)]


STRATEGIES = {"k-medoids": k_medoids, "k-centre": k_centre, "TypiClust": typical}


def typicality(distances):
    """1 over the mean distance to the nearest neighbours, of each."""
    return 1 / np.sort(distances, axis=1)[:, 1 : NEIGHBOURS + 1].mean(1)


SCORES = {
    "coverage": lambda d, chosen: -coverage(d, chosen),
    "worst distance": lambda d, chosen: -d[:, chosen].min(1).max(),
    "typicality": lambda d, chosen: typicality(d)[chosen].mean(),
    "apart": lambda d, chosen: d[np.ix_(chosen, chosen)].sum(),
}


# What came out ----------------------------------------------------------------------------


def report(runs, patients, found, *, roles):
    """Lines of text; of choices and draws for each of the roles, and else of validation alone.

    Args:
      runs: of the file.
      patients: of the training cases, in the order of the embeddings.
      found: {name: embedding}.
    """
    place = {patient: i for i, patient in enumerate(patients)}
    draws, choices = {}, {}
    for run in runs:
        number = len(run["patients"])
        if run["name"].startswith("random"):
            draws.setdefault(number, []).append(run)
        else:
            choices.setdefault((number, run["name"]), []).append(run)
    for number in sorted(draws):
        yield f"N = {number}: {len(draws[number])} random draws, " + ", ".join(
            f"{role} {100 * np.mean(x):.2f} ± {100 * np.std(x, ddof=min(1, len(x) - 1)):.2f}"
            for role in roles
            for x in [[_mean(run, role) for run in draws[number]]]
        )
    yield ""
    yield "Spearman's correlation with the validation DSC over random draws, N by N and together"
    for name, embedding in found.items():
        distances = pairwise(embedding)
        for score, function in SCORES.items():
            ranks, cells = [], []
            for _, of_number in sorted(draws.items()):
                chosen = [[place[p] for p in run["patients"]] for run in of_number]
                scores = [function(distances, c) for c in chosen]
                values = [_mean(run, "validation") for run in of_number]
                if len(values) < 4 or np.ptp(scores) == 0:
                    continue
                ranks.append((stats.rankdata(scores), stats.rankdata(values)))
                cells.append(f"{stats.spearmanr(scores, values).statistic:+.2f}")
            if ranks:
                together, p = _together(ranks)
                yield f"{name} {score}: {' '.join(cells)}; {together:+.2f} (p = {p:.3f})"
    yield ""
    for (number, name), of_choice in sorted(choices.items()):
        if number in draws:
            yield f"N = {number}, {name}: " + _against(of_choice, draws[number], roles)


def _together(ranks):
    """Correlation of ranks within groups, and how rarely shuffling within them gives as much."""
    pairs = [((a - a.mean()) / len(a), (b - b.mean()) / len(b)) for a, b in ranks]
    norm = np.sqrt(sum(a @ a for a, _ in pairs) * sum(b @ b for _, b in pairs))
    value, random = sum(a @ b for a, b in pairs) / norm, np.random.default_rng(0)
    shuffled = [
        sum(random.permutation(a) @ b for a, b in pairs) / norm for _ in range(_PERMUTATIONS)
    ]
    return value, float((np.array(shuffled) >= value).mean())


def _against(choice, draws, roles):
    """A choice against the mean of random draws, paired by case; and its place among them."""
    text = []
    for role in roles:
        cases = sorted(draws[0][role])
        mine = np.mean([[run[role][c] for c in cases] for run in choice], axis=0)
        random = np.mean([[run[role][c] for c in cases] for run in draws], axis=0)
        p = stats.ttest_rel(mine, random, alternative="greater").pvalue
        above = np.mean([mine.mean() > _mean(run, role) for run in draws])
        text.append(
            f"{role} {100 * mine.mean():.2f} ({100 * (mine - random).mean():+.2f} against their "
            f"mean, p = {p:.2g} over {len(cases)} cases; above {100 * above:.0f} % of them)"
        )
    return f"{len(choice)} seeds; " + "; ".join(text)


def _mean(run, role):
    return np.mean(list(run[role].values()))
