"""Agglomerative contextual decomposition: put the parts of an input together, the most telling first.

Singh, Murdoch, Yu (ICLR 2019), algorithm 1: score the units; choose those at the top; score each neighbour of a
component C by what it adds, phi(C + n) - phi(C); choose again, until all is one component. phi may be any score of sets
of units (`explainer.decomposition.scoring`).
"""

import numpy as np

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition.hierarchy import Hierarchy

# Of tokens, where so few are left, the percentile is this one: of the official code.
LAST_PERCENTILES = {5: 59, 4: 49, 3: 59, 2: 49, 1: 0}
DROP, SMALL_DROP = 15, 4  # of the percentile: where a third of an image is chosen, and where nothing passes
DIGITS = 6  # of the largest score, to which scores are compared: rounding must not choose


def agglomerate_text(score, T, *, percentile=99.5, rounds=None, names=()):
    """The hierarchy of T tokens. score(list of lists of tokens) -> (n,): phi of each set.

    percentile: of the |scores| of the tokens not chosen yet, that the next ones must reach: 99.5 takes about one in
    each round. rounds: at most so many; None: until the sentence is one component. Components are runs of tokens.
    Returns `Hierarchy`; its level 0 has the tokens by themselves. Raises UserError for scores that are not (n,).
    """
    number("T", T, least=1, whole=True)
    number("percentile", percentile, least=0, most=100)
    ask = _checked(score)
    singles = ask([[t] for t in range(T)])
    scores, chosen = _rounded(singles), np.zeros(T, bool)
    levels, found, units = [np.zeros(T, int)], [{}], [singles.copy()]
    while not chosen.all() and (rounds is None or len(levels) <= rounds):
        left = np.flatnonzero(~chosen)
        at = LAST_PERCENTILES.get(len(left), percentile)
        size = np.abs(scores[left])
        chosen[left[size >= np.percentile(size, at)]] = True
        labels = _runs(chosen)
        parts = [np.flatnonzero(labels == c).tolist() for c in range(1, labels.max() + 1)]
        neighbours = [(c, t) for c, part in enumerate(parts) for t in (part[0] - 1, part[-1] + 1) if 0 <= t < T]
        values = ask(parts + [sorted([*parts[c], t]) for c, t in neighbours])
        for (c, t), value in zip(neighbours, values[len(parts) :]):  # of two runs, the later one wins
            scores[t] = value - values[c]
        scores = _rounded(scores)
        levels.append(labels)
        found.append(dict(enumerate(values[: len(parts)], 1)))
        units.append(np.where(chosen, np.nan, scores))
    return Hierarchy(levels, found, units, None, list(names))


def _runs(chosen):
    """Numbers from 1 of the runs of True, 0 elsewhere."""
    starts = chosen & ~np.concatenate([[False], chosen[:-1]])
    return np.where(chosen, np.cumsum(starts), 0)


def agglomerate_image(score, units, *, percentile=95.0, rounds=5):
    """The hierarchy of an image's units. score(list of lists of units) -> (n,): phi of each set, for the class asked.

    units (H,W): the number of every pixel's unit, 0, 1, … (`tiles`, `superpixels`). percentile: of the scores of the
    units not chosen yet, that the next ones must reach; it drops by 15 where more than a third is chosen. rounds: of
    choosing; then the pair of components, neighbours or not, whose union gains the most is put together, until there
    is one. Components are 8-connected, candidates 4-adjacent to them.
    """
    units = np.asarray(units)
    if units.ndim != 2 or not units.size or not np.issubdtype(units.dtype, np.integer):
        raise UserError(f"units are {units.dtype} {units.shape}: give whole numbers (H, W)")
    U = int(units.max()) + 1
    if not np.array_equal(np.unique(units), np.arange(U)):
        raise UserError(f"units {units.shape} are numbered {np.unique(units)[:5]}…: give (H, W) with 0, 1, … each used")
    number("percentile", percentile, least=0, most=100)
    number("rounds", rounds, least=1, whole=True)
    ask, near, touching = _checked(score), _adjacent(units, False), _adjacent(units, True)
    scores, chosen = ask([[u] for u in range(U)]), np.zeros(U, bool)
    levels, found, kept = [np.zeros(U, int)], [{}], [scores.copy()]
    for _ in range(rounds):
        if chosen.all():
            break
        _choose(chosen, _rounded(scores), percentile)
        chosen |= ~chosen & ((near & chosen).sum(1) >= 3)  # holes
        parts = _connected(chosen, touching)
        pairs = [(c, n) for c, part in enumerate(parts) for n in np.flatnonzero(near[part].any(0) & ~chosen)]
        values = ask(parts + [sorted([*parts[c], int(n)]) for c, n in pairs])
        gains = {}
        for (c, n), value in zip(pairs, values[len(parts) :]):
            gains[n] = max(gains.get(n, -np.inf), value - values[c])
        scores[list(gains)] = list(gains.values())
        levels.append(_numbered(parts, U))
        found.append(dict(enumerate(values[: len(parts)], 1)))
        kept.append(np.where(chosen, np.nan, scores))
    _merge(ask, U, levels, found, kept)
    return Hierarchy(levels, found, kept, units)


def _choose(chosen, scores, percentile):
    """Mark the units whose score reaches the percentile of those left, and at least one."""
    left = np.flatnonzero(~chosen)
    at = percentile - (DROP if 3 * chosen.sum() > len(chosen) else 0)
    passed = left[scores[left] >= np.percentile(scores[left], max(at, 0))]
    while not len(passed):
        at -= SMALL_DROP
        passed = left[scores[left] >= np.percentile(scores[left], max(at, 0))]
    chosen[passed] = True


def _merge(ask, U, levels, found, kept):
    """Put the pair whose union gains the most together, until one component is left."""
    parts = [np.flatnonzero(levels[-1] == c).tolist() for c in range(1, levels[-1].max() + 1)]
    values, gains = [found[-1][c] for c in range(1, len(parts) + 1)], {}
    while len(parts) > 1:
        new = [(a, b) for a in range(len(parts)) for b in range(a) if (id(parts[a]), id(parts[b])) not in gains]
        for (a, b), union in zip(new, ask([sorted(parts[a] + parts[b]) for a, b in new]) if new else ()):
            gains[id(parts[a]), id(parts[b])] = union, union - max(values[a], values[b])
        pairs = [(a, b) for a in range(len(parts)) for b in range(a)]
        a, b = pairs[int(np.argmax(_rounded(np.array([gains[id(parts[a]), id(parts[b])][1] for a, b in pairs]))))]
        joined, value = sorted(parts[a] + parts[b]), gains[id(parts[a]), id(parts[b])][0]
        keep = [c for c in range(len(parts)) if c not in (a, b)]
        parts, values = [*(parts[c] for c in keep), joined], [*(values[c] for c in keep), value]
        levels.append(_numbered(parts, U))
        found.append(dict(enumerate(values, 1)))
        kept.append(kept[-1])


def _numbered(parts, U):
    labels = np.zeros(U, int)
    for c, part in enumerate(parts, 1):
        labels[part] = c
    return labels


def _adjacent(units, corners):
    """(U,U): which units have pixels side by side, or (corners) at a corner."""
    U = int(units.max()) + 1
    found = np.zeros((U, U), bool)
    pairs = [(units[1:], units[:-1]), (units[:, 1:], units[:, :-1])]
    if corners:
        pairs += [(units[1:, 1:], units[:-1, :-1]), (units[1:, :-1], units[:-1, 1:])]
    for a, b in pairs:
        found[a.reshape(-1), b.reshape(-1)] = found[b.reshape(-1), a.reshape(-1)] = True
    np.fill_diagonal(found, False)
    return found


def _connected(chosen, touching):
    """The connected parts of the chosen units, in the order of their first unit."""
    parts, seen = [], set()
    for first in np.flatnonzero(chosen):
        if first in seen:
            continue
        part, waiting = set(), [first]
        while waiting:
            unit = waiting.pop()
            if unit not in part:
                part.add(unit)
                waiting += [n for n in np.flatnonzero(touching[unit] & chosen) if n not in part]
        seen |= part
        parts.append(sorted(int(unit) for unit in part))
    return parts


def _checked(score):
    def ask(sets):
        values = np.asarray(score(sets), dtype=float)
        if values.shape != (len(sets),) or not np.isfinite(values).all():
            raise UserError(f"the score function gave {values.shape} for {len(sets)} sets: it must give a number each")
        return values

    return ask


def _rounded(scores):
    """To DIGITS of the largest, so that rounding in another batch size chooses nothing else."""
    largest = np.nanmax(np.abs(scores), initial=0.0)
    if not largest > 0:
        return scores.copy()
    return np.round(scores, DIGITS - 1 - int(np.floor(np.log10(largest))))


def tiles(height, width, size):
    """Units of size x size pixels, row by row, for `agglomerate_image`: (H,W); the last ones may be smaller."""
    for name, value in (("height", height), ("width", width), ("size", size)):
        number(name, value, least=1, whole=True)
    rows, columns = np.arange(height) // size, np.arange(width) // size
    return rows[:, None] * (columns[-1] + 1) + columns[None, :]


def superpixels(image, number_of=60, compactness=10.0):
    """Units that follow the edges of an image (H,W,3) or (H,W): SLIC, from scikit-image, an optional package."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise UserError("superpixels need the package scikit-image: pip install scikit-image, or take tiles") from error
    image = np.asarray(image)
    labels = slic(image, number_of, compactness, start_label=0, channel_axis=-1 if image.ndim == 3 else None)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
