"""How far methods and settings agree on a test point's best explanations (paper, Tables 7 and 8, Figures 1 and 3)."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import pearsonr, spearmanr

PUBLISHED = Path(__file__).with_name("published_correlations.csv")
QUANTILES = (0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
CORRELATIONS = {"Pearson": pearsonr, "Spearman": spearmanr}


def top_k_correlations(a, b, k=5):
    """Correlate two methods' importances on the union of their k best training points, for each test point.

    a, b: importances (n,m) of n training points for m test points, larger is better, as `Method.importance` gives
    them. Returns a table of m rows with the columns Pearson and Spearman.
    """
    rows = []
    for mine, theirs in zip(a.T, b.T):
        union = np.union1d(np.argsort(-mine, kind="stable")[:k], np.argsort(-theirs, kind="stable")[:k])
        rows.append({name: correlate(mine[union], theirs[union])[0] for name, correlate in CORRELATIONS.items()})
    return pd.DataFrame(rows)


def quantile_table(model, correlations):
    """Quantiles of the correlations over the test points, the lower neighbour as published, beside the paper's.

    model: whose published numbers. correlations: {column name: what `top_k_correlations` returned}.
    """
    published = pd.read_csv(PUBLISHED).query("model == @model").set_index(["correlation", "quantile"])["value"]
    columns = {}
    for name in CORRELATIONS:
        columns[name, "published"] = published[name].reindex(QUANTILES)
        for source, values in correlations.items():
            columns[name, source] = values[name].quantile(QUANTILES, interpolation="lower")
    return pd.DataFrame(columns).rename_axis("quantile")


def best_explanations(importance, k):
    """The k best training points of each test point, best first, (k,m); importance (n,m), larger is better."""
    return torch.topk(torch.as_tensor(importance), k, dim=0).indices.numpy()


def distinct_explanations(best, labels):
    """How individual a method's explanations are, for each class of test points.

    best (k,m): as `best_explanations` gives them. labels (m,): the classes of the test points. Returns a table with a
    row per class: test points, the number of different sets of k, and the share of the test points that have the most
    frequent one. A method that explains a whole class alike has 1 set and a share of 1.
    """
    rows = {}
    for label in np.unique(labels):
        sets = np.sort(best[:, labels == label], axis=0)
        _, counts = np.unique(sets, axis=1, return_counts=True)
        share = counts.max() / counts.sum()
        rows[label] = {"test points": counts.sum(), "different sets": len(counts), "most frequent": share}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


def overlap(bests):
    """The mean share of the k best training points that two settings of a method have in common.

    bests: one (k,m) per setting. The mean is over all pairs of settings and all m test points: 1 where a setting
    changes nothing.
    """
    k = len(bests[0])
    pairs = [(a[:, None] == b[None]).any(1).sum(0) / k for a, b in combinations(bests, 2)]
    return float(np.mean(pairs))
