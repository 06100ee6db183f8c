"""How far two methods agree on a test point's best explanations (paper, Tables 7 and 8)."""

from pathlib import Path

import numpy as np
import pandas as pd
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
