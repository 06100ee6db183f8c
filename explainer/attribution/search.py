"""Approximate search for the best training points, with its recall: the optional faiss index."""

import numpy as np
import torch

from config import UserError
from explainer.attribution import ranks
from explainer.attribution.checks import number
from explainer.attribution.scores import vectors

SAMPLE = 100  # test points on which the recall is measured


def approximate(explainer, question, k, sign, search, settings):
    """(values, indices, recall) of the k best training points by an inverted-file index over the vectors f_i c_i'.

    settings: `lists`, the cells of the index, the square root of n by default; `probes`, how many are looked into.
    Raises UserError for an unknown search or setting, methods of several terms, several ranks, and where faiss is
    missing.
    """
    if search != "faiss":
        raise UserError(f"search is {search!r}: give exact or faiss")
    settings = {"lists": max(1, int(explainer.n**0.5)), "probes": 16, **settings}
    if set(settings) != {"lists", "probes"}:
        raise UserError(f"search_settings: got {', '.join(settings)}; give lists and probes")
    number("lists", settings["lists"], least=1, most=explainer.n, whole=True)
    number("probes", settings["probes"], least=1, whole=True)
    try:
        import faiss
    except ImportError as error:
        raise UserError("search faiss needs the package faiss-cpu: pip install faiss-cpu, or search='exact'") from error
    if ranks.size() > 1 or len(explainer.terms) != 1:
        raise UserError("search faiss works on one rank and one checkpoint: take search='exact'")
    F, classes = question.features, question.classes
    queries = explainer._queries(F, classes)
    (side,), (term,) = queries.dense, explainer.terms
    V = side[0][:, :, None] * side[1][:, None, :] if isinstance(side, tuple) else side
    V = (sign * V.transpose(1, 2).reshape(len(F), -1)).float().cpu().numpy()
    blocks = [vectors(f, term.coefficients(rows).to(f.dtype)).float() for rows, f in term.rows.blocks()]
    points = torch.cat(blocks).cpu().numpy()
    index = faiss.index_factory(points.shape[1], f"IVF{settings['lists']},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(points)
    index.add(points)
    faiss.extract_index_ivf(index).nprobe = settings["probes"]
    values, indices = index.search(V, k)
    few = (indices < 0).any(1)
    if few.any():  # too few points in the cells that were looked into
        rows = torch.as_tensor(np.flatnonzero(few), device=F.device)
        best, picked = explainer._best(question, explainer._queries(F[rows], classes[rows]), k, sign)
        best = sign * (best - queries.constant[rows, None].to(best.dtype))
        values[few], indices[few] = best.float().cpu().numpy(), picked.cpu().numpy()
    constant = queries.constant.float().cpu().numpy()[:, None]
    some = torch.linspace(0, len(F) - 1, min(SAMPLE, len(F))).long().to(F.device)
    exact = explainer._best(question, explainer._queries(F[some], classes[some]), k, sign)[1].cpu().numpy()
    found = indices[some.cpu().numpy()]
    recall = float((exact[:, :, None] == found[:, None, :]).any(2).mean())
    return sign * values + constant, indices, recall
