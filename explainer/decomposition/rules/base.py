"""What every rule is given: the settings of a pass, and how a constant is shared between the two parts."""

import torch

from explainer.decomposition.held import Held
from explainer.decomposition.split import Split, splits


class Misaligned(Exception):
    """What maxima pick was not recorded in the order in which it is asked for."""


class Rules:
    """The settings of one pass of a model, and what the pass over the unmasked input has found.

    relu: "acd", b' = relu(b), or "shapley", the mean over both orders. zero_rule: how a constant is shared where both
    parts are exactly 0: "coverage", by the share of the input that the mask covers, so that a full mask leaves nothing
    irrelevant and an empty one nothing relevant; or "half". bias_rule: whether an LSTM's own drive, i_c q_c, is
    relevant at the tokens of the mask ("mask") or never ("irrelevant"). detach_share: take the shares as constants
    in the gradient.
    picks: what each selection (of a maximum) picks in the unmasked input, in the order of the calls; rows (R,): the
    input that each row of the masked batch was made from.
    """

    def __init__(
        self, relu="acd", zero_rule="coverage", bias_rule="mask", detach_share=False, picks=(), rows=None, nodes=None
    ):
        self.relu, self.zero_rule, self.bias_rule, self.detach_share = relu, zero_rule, bias_rule, detach_share
        self.picks, self.rows, self.nodes, self._next = picks, rows, nodes, 0
        self.held = Held(self)

    def share(self, u, v, w):
        """s = |u| / (|u| + |v|), the relevant part's share of a constant; w where both are 0 (or 1/2)."""
        own, whole = u.abs(), v.abs()
        equal = w.to(u.dtype) if self.zero_rule == "coverage" else 0.5
        if not torch.is_grad_enabled():
            s = own.div_(whole.add_(own))
            return s if not s.sum().isnan() else torch.where(s.isnan(), equal, s)  # 0/0
        whole = whole + own
        dead = whole == 0
        s = torch.where(dead, equal, own / whole.masked_fill(dead, 1.0))
        return s.detach() if self.detach_share else s

    def bias(self, x, constant, fresh=False):
        """x, a Split, plus a constant that is shared out between its parts. fresh: nobody else has x's parts."""
        s = self.share(x.b, x.g, x.w)
        if fresh and not torch.is_grad_enabled():
            return x.like(x.b.addcmul_(s, constant), x.g.add_(constant).addcmul_(s, constant, value=-1))
        s = s * constant
        return x.like(x.b + s, x.g + (constant - s))

    def pick(self, compute, shape):
        """What the next selection picks, for each row of the masked batch: an index of a shape (None: of any size).

        As recorded in the unmasked input, where rounding cannot choose otherwise for one mask than for another, or
        compute(), that of b + g, where what was recorded is not what is asked for.
        """
        if self.picks is None:
            return compute()
        self._next += 1
        index = self.picks[self._next - 1] if self._next <= len(self.picks) else None
        if index is None or not self._by_rows(index, shape):
            raise Misaligned
        return index[self.rows]

    def _by_rows(self, index, shape):
        """Whether the first dimension of what was recorded is the inputs, and no other can be."""
        R = len(self.rows)
        if index.ndim != len(shape) or not shape or shape[0] != R or not len(index) > int(self.rows.max()):
            return False
        if any(size not in (None, own) for size, own in zip(shape[1:], index.shape[1:])):
            return False
        return len(index) != R or R not in index.shape[1:] or self.rows.equal(torch.arange(R, device=self.rows.device))

    def finish(self):
        """Raise `Misaligned` unless all that was recorded was asked for."""
        if self.picks is not None and self._next != len(self.picks):
            raise Misaligned

    def record(self, name, value):
        """Keep a result for `cd_layers`."""
        if self.nodes is not None:
            for part in (part for part in splits(value) if not part.fixed):
                self.nodes.append((name, part.b, part.g))


def even(w):
    """w with one value for each row: the mean where its entries differ."""
    if all(size == 1 for size in w.shape[1:]):
        return w
    return w.mean(tuple(range(1, w.ndim)), keepdim=True)


def stacked(x, function):
    """A function of rows, applied to both parts at once: (function(b), function(g))."""
    return function(torch.cat([x.b, x.g])).chunk(2)


def mixed(x, function):
    """The parts of a linear function without a constant, which mixes the entries of a row."""
    b, g = stacked(x, function)
    return x.like(b, g, even(x.w).reshape(-1, *[1] * (b.ndim - 1)))


def plain(*values):
    """Whether none of the values is a Split."""
    return not any(isinstance(value, Split) for value in values)


def joined(rules, x, constant):
    """x, a Split, plus a constant that is shared out; the infinite in it, as of masks of attention, is irrelevant."""
    if not constant.is_floating_point() or not (infinite := constant.isinf()).any():
        return rules.bias(x, constant)
    y = rules.bias(x, constant.masked_fill(infinite, 0.0))
    return y.like(y.b, y.g + torch.where(infinite, constant, 0.0))
