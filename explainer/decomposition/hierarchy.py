"""Hierarchy: which parts of an input were put together, level by level, and what each of them scores."""

import json
from dataclasses import dataclass, field

import numpy as np

from config import UserError
from models.files import load_json, save_text

REMEDY = "give what to_json has written"


@dataclass(eq=False)
class Hierarchy:
    """The components of the units 0, 1, … of an input, from the smallest to the last.

    levels: for each level an array (U,), 0 for a unit that is in no component yet, else the component's number, from 1;
    at level 0 there is none. scores: for each level {component: score}. unit_scores: for each level an array (U,), what
    each unit would add, nan for those that are in a component; at level 0 the units by themselves.
    units: the array (H,W) of every pixel's unit, None for tokens. names: of the units.
    """

    levels: list
    scores: list
    unit_scores: list
    units: np.ndarray | None = None
    names: list = field(default_factory=list)

    def components(self, level):
        """The components of a level: {number: sorted units}."""
        labels = self.levels[level]
        return {int(c): np.flatnonzero(labels == c).tolist() for c in np.unique(labels[labels > 0])}

    def nested(self):
        """Whether every component lies within one of the next level."""
        for before, after in zip(self.levels, self.levels[1:]):
            for c in np.unique(before[before > 0]):
                found = np.unique(after[before == c])
                if len(found) != 1 or found[0] == 0:
                    return False
        return True

    def collapse(self):
        """The tree of the components, without rounds that put nothing together.

        A list of dictionaries: units, score, level: 0 for a single unit, that of the only larger component within it,
        else one more than the highest within it; round: the first in which it is a component. Every set of units once.
        """
        singles = self.unit_scores[0]
        found = {(u,): {"units": [u], "score": s, "level": 0, "round": 0} for u, s in enumerate(singles.tolist())}
        for number in range(len(self.levels)):
            for c, units in self.components(number).items():
                key = tuple(units)
                if key in found:
                    continue
                inside = [node for node in found.values() if set(node["units"]) < set(units)]
                outermost = [a for a in inside if not any(set(a["units"]) < set(b["units"]) for b in inside)]
                highest = max(node["level"] for node in outermost)
                larger = sum(len(node["units"]) > 1 for node in outermost)
                level = highest + (larger != 1)  # one component that has only grown stays where it is
                found[key] = {"units": units, "score": self.scores[number][c], "level": level, "round": number}
        return list(found.values())

    def to_json(self, path=None):
        """The hierarchy as text; written to a file as well where there is a path."""
        data = {
            "levels": [level.tolist() for level in self.levels],
            "scores": [{str(c): _plain(score) for c, score in scores.items()} for scores in self.scores],
            "unit_scores": [[None if np.isnan(s) else float(s) for s in scores] for scores in self.unit_scores],
            "units": None if self.units is None else self.units.tolist(),
            "names": self.names,
        }
        text = json.dumps(data)
        if path is not None:
            save_text(path, text)
        return text

    @classmethod
    def from_json(cls, source):
        """From what `to_json` gives: the text, or the path of a file. Raises UserError where it is neither."""
        given = isinstance(source, str) and source.lstrip().startswith("{")  # the path of a file may begin so as well
        try:
            data = json.loads(source) if given else load_json(source, REMEDY)
            read = cls(
                [np.array(level, dtype=int) for level in data["levels"]],
                [{int(c): _score(score) for c, score in scores.items()} for scores in data["scores"]],
                [_unit_scores(scores) for scores in data["unit_scores"]],
                None if data["units"] is None else np.array(data["units"], dtype=int),
                data["names"],
            )
            return read._checked()
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"this is no hierarchy ({error}): {REMEDY}") from error

    def _checked(self):
        """The same hierarchy. Raises ValueError where its parts do not fit each other."""
        U, levels = len(self.unit_scores[0]) if self.unit_scores else 0, len(self.levels)
        if not (U and levels == len(self.scores) == len(self.unit_scores)):
            raise ValueError("levels, scores and unit_scores are not of one length")
        if any(array.shape != (U,) for array in (*self.levels, *self.unit_scores)):
            raise ValueError("its levels are of different numbers of units")
        for level, scores in zip(self.levels, self.scores):
            if level.min() < 0 or set(level[level > 0].tolist()) - set(scores):
                raise ValueError("a component has no score")
        names = self.names
        if not isinstance(names, list) or len(names) not in (0, U) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names are not texts of its {U} units")
        if self.units is not None and (self.units.ndim != 2 or not 0 <= self.units.min() <= self.units.max() < U):
            raise ValueError(f"units are not pixels of its {U} units")
        return self


def _unit_scores(scores):
    """Scores of units as an array, NaN for None, which alone stands for it."""
    if np.isnan(np.array([s for s in scores if s is not None], float)).any():
        raise ValueError("a unit's score is no number")
    return np.array([np.nan if s is None else s for s in scores], float)


def _score(score):
    """A component's score, a number or a list of them, as it is."""
    if np.array(score, float).ndim > 1 or (isinstance(score, list) and not score):
        raise ValueError("a component's score is no number and no list of them")
    return np.array(score, float) if isinstance(score, list) else score


def _plain(score):
    return score.tolist() if isinstance(score, np.ndarray) else float(score)
