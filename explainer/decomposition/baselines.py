"""What contextual decomposition is compared with, behind the same interface: larger is more for the class.

Units of an input: masks as `cd` and `cd_text` take them. x (N,...): images, rows of features, or tokens (integers).
target: a class, one for each input (N,), or None for all classes, (..., K). kwargs, masked and logits: as for `cd`.
Every forward works on copies of the inputs.
"""

import torch

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition import passes
from explainer.decomposition.cd import LESS, MAX_BATCH
from explainer.decomposition.embeddings import embedding_of
from explainer.decomposition.given import Given
from explainer.decomposition.scores import check_inputs, check_masks, logits_of
from models.training import enough_memory


def build_up(model, x, masks, target=None, fill=0.0, lengths=None, max_batch=MAX_BATCH, **more):
    """The logits where all but the mask is replaced by `fill`, (N,Q): how much the part says by itself."""
    return _replaced(Reader(model, x, lengths, **more), masks, target, fill, max_batch, keep=True)


def occlusion(model, x, masks, target=None, fill=0.0, lengths=None, max_batch=MAX_BATCH, **more):
    """How far the logits fall where the mask is replaced by `fill`, (N,Q)."""
    reader = Reader(model, x, lengths, **more)
    with torch.no_grad():
        whole = picked(reader.logits(reader.x, torch.arange(len(reader.x))), target)
    return whole[:, None] - _replaced(reader, masks, target, fill, max_batch, keep=False)


@torch.no_grad()
def _replaced(reader, masks, target, fill, max_batch, keep):
    number("max_batch", max_batch, least=1, whole=True)
    x = reader.x
    tokens = not x.is_floating_point()
    masks = check_masks(masks, x.to(torch.get_default_dtype()) if tokens else x)
    masks = masks if keep else 1 - masks
    N, Q = masks.shape[:2]
    fill, found = torch.as_tensor(fill, dtype=x.dtype, device=x.device), []
    for some in torch.arange(N * Q, device=x.device).split(max_batch):
        rows, m = some // Q, masks[some // Q, some % Q]
        changed = torch.where(m > 0.5, x[rows], fill) if tokens else m * x[rows] + (1 - m) * fill
        found.append(reader.logits(changed, rows))
    found = torch.cat(found).reshape(N, Q, -1)
    return picked(found, target)


class Reader:
    """A model with its inputs. kwargs, masked, logits: as for `cd`, the masked input being x below."""

    def __init__(self, model, x, lengths=None, kwargs=None, masked=0, logits=None):
        self.model, self.read = passes.behind(model), logits
        self.given = Given(x if lengths is None else (x, torch.as_tensor(lengths)), kwargs, masked)
        self.x = check_inputs(self.given.x)

    def logits(self, x, rows):
        """The logits where the masked input is x (R,...), of rows (R,) of the others."""
        with passes.as_evaluated(self.model), enough_memory(LESS):
            args, kwargs = self.given.rows(rows, x)
            return logits_of(passes.called(self.model, args, kwargs), self.model, self.read, len(rows))


def picked(logits, target):
    """The target's logits of (N,...,K), without the last dimension; all of them where target is None.

    Of one logit, class 1 has that logit and class 0 its negative.
    """
    if target is None:
        return logits
    K = logits.shape[-1]
    try:
        target = torch.as_tensor(target, device=logits.device).expand(len(logits))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"target is {target!r}: give a class, or one for each of {len(logits)} inputs") from error
    if target.is_floating_point() or ((target < 0) | (target >= max(K, 2))).any():
        raise UserError(f"target is {target.tolist()[:5]}: give classes from 0 to {max(K, 2) - 1}")
    shape = len(logits), *[1] * (logits.ndim - 1)
    if K == 1:
        return (logits * (2 * target - 1).to(logits.dtype).reshape(shape))[..., 0]
    return logits.gather(-1, target.reshape(shape).expand(*logits.shape[:-1], 1))[..., 0]


def gradient_times_input(model, x, target, lengths=None, embedding="auto", **more):
    """x times the gradient of the class's logit, shaped like x; of tokens (N,T), summed over the embedding."""
    return _along_path(Reader(model, x, lengths, **more), target, None, 1, embedding, MAX_BATCH)


def integrated_gradients(
    model, x, target, baseline=0.0, steps=100, lengths=None, embedding="auto", max_batch=MAX_BATCH, **more
):
    """Sundararajan et al. (2017): the gradients on the way from a baseline, times that way, shaped like x.

    baseline: a number or tensor like x; of tokens, the token that stands for nothing, such as that of ".". steps: of
    the midpoint rule. Sums to the change of the logit along the way, the better the more steps.
    """
    number("steps", steps, least=1, whole=True)
    return _along_path(Reader(model, x, lengths, **more), target, baseline, steps, embedding, max_batch)


def _along_path(reader, target, baseline, steps, embedding, max_batch):
    """baseline None: the gradient at x itself, times x."""
    model, x = reader.model, reader.x
    layer = None if x.is_floating_point() else embedding_of(model, embedding)
    with passes.as_evaluated(model), enough_memory(LESS):
        start = x if layer is None else layer(x)
        if baseline is None:
            origin, points = torch.zeros_like(start), [1.0]
        else:
            origin = torch.as_tensor(baseline, device=x.device)
            origin = origin.to(x.dtype).expand_as(x) if layer is None else layer(origin.long().expand_as(x))
            points = [(step + 0.5) / steps for step in range(steps)]
        way, total = (start - origin).detach(), torch.zeros_like(start)
        each = max(1, max_batch // len(x))
        for some in [points[i : i + each] for i in range(0, len(points), each)]:
            inputs = torch.cat([origin.detach() + point * way for point in some]).requires_grad_()
            with torch.enable_grad():
                logits = _of_vectors(reader, layer, inputs, len(some))
                value = picked(logits.reshape(len(some), len(x), -1).transpose(0, 1), target).sum()
                gradient = torch.autograd.grad(value, inputs)[0]
            total = total + gradient.reshape(len(some), *start.shape).sum(0)
        found = way * total / len(points)
    return found if layer is None else found.sum(-1)


def _of_vectors(reader, layer, inputs, copies):
    """The logits of inputs (copies N,...), or of the embedding's vectors in place of tokens."""
    rows = torch.arange(len(reader.x)).repeat(copies)
    if layer is None:
        return reader.logits(inputs, rows)
    with passes.patched(reader.model, {layer: lambda module, _: inputs.clone()}):
        return reader.logits(reader.x[rows.to(reader.x.device)], rows)
