"""What contextual decomposition is compared with, behind the same interface: larger is more for the class.

Units of an input: masks as `cd` and `cd_text` take them. x (N,...): images, rows of features, or tokens (integers).
target: a class, one for each input (N,), or None for all classes, (..., K).
"""

import torch

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition import passes
from explainer.decomposition.cd import LESS, MAX_BATCH
from explainer.decomposition.embeddings import embedding_of
from explainer.decomposition.scores import check_inputs, check_masks, logits_of
from models.training import enough_memory


def build_up(model, x, masks, target=None, fill=0.0, lengths=None, max_batch=MAX_BATCH):
    """The logits where all but the mask is replaced by `fill`, (N,Q): how much the part says by itself."""
    return _replaced(model, x, masks, target, fill, lengths, max_batch, keep=True)


def occlusion(model, x, masks, target=None, fill=0.0, lengths=None, max_batch=MAX_BATCH):
    """How far the logits fall where the mask is replaced by `fill`, (N,Q)."""
    with torch.no_grad():
        whole = picked(_logits(model, x, lengths), target)
    return whole[:, None] - _replaced(model, x, masks, target, fill, lengths, max_batch, keep=False)


@torch.no_grad()
def _replaced(model, x, masks, target, fill, lengths, max_batch, keep):
    number("max_batch", max_batch, least=1, whole=True)
    x = check_inputs(x)
    tokens = not x.is_floating_point()
    masks = check_masks(masks, x.to(torch.get_default_dtype()) if tokens else x)
    masks = masks if keep else 1 - masks
    N, Q = masks.shape[:2]
    fill, found = torch.as_tensor(fill, dtype=x.dtype, device=x.device), []
    lengths = None if lengths is None else torch.as_tensor(lengths)
    for some in torch.arange(N * Q, device=x.device).split(max_batch):
        rows, m = some // Q, masks[some // Q, some % Q]
        changed = torch.where(m > 0.5, x[rows], fill) if tokens else m * x[rows] + (1 - m) * fill
        found.append(_logits(model, changed, None if lengths is None else lengths[rows.cpu()]))
    found = torch.cat(found).reshape(N, Q, -1)
    return picked(found, target)


def _logits(model, x, lengths):
    with passes.as_evaluated(model), enough_memory(LESS):
        return logits_of(model(x) if lengths is None else model(x, torch.as_tensor(lengths, device=x.device)), model)


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


def gradient_times_input(model, x, target, lengths=None, embedding="auto"):
    """x times the gradient of the class's logit, shaped like x; of tokens (N,T), summed over the embedding."""
    return _along_path(model, x, target, None, 1, lengths, embedding, MAX_BATCH)


def integrated_gradients(
    model, x, target, baseline=0.0, steps=100, lengths=None, embedding="auto", max_batch=MAX_BATCH
):
    """Sundararajan et al. (2017): the gradients on the way from a baseline, times that way, shaped like x.

    baseline: a number or tensor like x; of tokens, the token that stands for nothing, such as that of ".". steps: of
    the midpoint rule. Sums to the change of the logit along the way, the better the more steps.
    """
    number("steps", steps, least=1, whole=True)
    return _along_path(model, x, target, baseline, steps, lengths, embedding, max_batch)


def _along_path(model, x, target, baseline, steps, lengths, embedding, max_batch):
    """baseline None: the gradient at x itself, times x."""
    x = check_inputs(x)
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
                logits = _of_vectors(model, layer, x, inputs, lengths, len(some))
                value = picked(logits.reshape(len(some), len(x), -1).transpose(0, 1), target).sum()
                gradient = torch.autograd.grad(value, inputs)[0]
            total = total + gradient.reshape(len(some), *start.shape).sum(0)
        found = way * total / len(points)
    return found if layer is None else found.sum(-1)


def _of_vectors(model, layer, x, inputs, lengths, copies):
    """The logits of inputs (copies N,...), or of the embedding's vectors in place of tokens."""
    if layer is None:
        return logits_of(model(inputs), model)
    tokens = x.repeat(copies, 1)
    given = (tokens,) if lengths is None else (tokens, torch.as_tensor(lengths, device=x.device).repeat(copies))
    with passes.patched(model, {layer: lambda module, _: inputs}):
        return logits_of(model(*given), model)
