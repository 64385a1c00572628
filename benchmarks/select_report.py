"""What benchmarks.select found: which score of a draw goes with its DSC, and what choices reach."""

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2

from mijax.runs.source import open_data
from mijax.selection import describe_volume
from mijax.selection.choice import coverage, pairwise, representatives
from mijax.selection.embedding import standardised

NEIGHBOURS = 20  # of TypiClust
_PERMUTATIONS = 10_000


def embeddings(config, scans, runs=()):
    """{name: (p, d)} of the patients of ``{patient: case names}``.

    The plain descriptor, each of its blocks alone, and the features of each run.
    """
    source, rows = open_data(config), {}
    for name in (n for names in scans.values() for n in names):
        rows[name] = describe_volume(source.volume(name), config.data.patches)
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
    draws, choices, sparse = {}, {}, {}
    for run in runs:
        number, every = len(run["patients"]), run.get("every", 1)
        if not run["name"].startswith("random"):
            choices.setdefault((number, run["name"]), []).append(run)
        elif every > 1:
            sparse.setdefault((number, every), []).append(run)
        else:
            draws.setdefault(number, []).append(run)
    for number, of_number in sorted(draws.items()):
        yield f"N = {number}: {_summary(of_number, roles)}"
    for (number, every), of_kind in sorted(sparse.items()):
        yield f"N = {number}, one slice in {every}: {_summary(of_kind, roles)}"
        for other, of_other in sorted(draws.items()):
            p = (stats.mannwhitneyu(*(_means(x, r) for x in (of_kind, of_other))) for r in roles)
            text = (f"{role} p = {found.pvalue:.2g}" for role, found in zip(roles, p, strict=True))
            yield f"  against all slices of {other}: {', '.join(text)} (Mann-Whitney)"
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
                yield f"{name} {score}: {' '.join(cells)}; {together:+.2f} (one-sided p = {p:.3f})"
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
    return value, _by_chance(shuffled, value)


def _by_chance(drawn, value):
    """p of its rank, if ``value`` were drawn like these."""
    return (1 + np.sum(np.array(drawn) >= value)) / (1 + len(drawn))


def _against(choice, draws, roles):
    """A choice against random draws: it is one of them if it chooses no better than chance.

    A t-test of their mean against it is none of that: it is passed by each draw above the mean.
    """
    text = []
    for role in roles:
        mine, drawn = np.mean(_means(choice, role)), np.array(_means(draws, role))
        text.append(
            f"{role} {100 * mine:.2f} ({100 * (mine - drawn.mean()):+.2f} against their mean, "
            f"above {np.sum(drawn < mine)} of {len(drawn)}, p = {_by_chance(drawn, mine):.2g})"
        )
    return f"{len(choice)} seeds; " + "; ".join(text)


def _summary(runs, roles):
    text = []
    for role in roles:
        x = 100 * np.array(_means(runs, role))
        spread = np.std(x, ddof=min(1, len(x) - 1))
        text.append(f"{role} {x.mean():.2f} ± {spread:.2f}, median {np.median(x):.2f}")
    return f"{len(runs)} random draws, {'; '.join(text)}"


def _means(runs, role):
    return [_mean(run, role) for run in runs]


def _mean(run, role):
    return np.mean(list(run[role].values()))
