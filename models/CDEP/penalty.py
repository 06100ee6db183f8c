"""Penalties on explanations: what is masked must not matter.

CDEP (Rieger, Singh, Murdoch, Yu, ICML 2020) penalizes the contextual decomposition of the masked part,

    loss = cross-entropy + lambda * sum over masks of |score(b, g) - target|,

right for the right reasons (RRR; Ross, Hughes, Doshi-Velez, 2017) the gradient in the masked part, and expected
gradients (EG; Erion et al., 2021) the attributions there. All are batched: one backward with the cross-entropy.
"""

import threading
import weakref

import torch
from torch import nn
from torch.nn.functional import softplus

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition import cd, cd_parts, cd_text
from explainer.decomposition.given import Given
from explainer.decomposition.passes import as_evaluated, behind, called
from explainer.decomposition.scores import check_masks, logits_of

CHECK = 100  # the first step and every so many: the sums of both parts are compared with the output
_calls, _lock = weakref.WeakKeyDictionary(), threading.Lock()  # of each model, the penalties asked for
MODES = {
    "softmax": lambda b, g: torch.sigmoid(b - g),  # e^b / (e^b + e^g), as published for images
    "l1": lambda b, g: b.abs(),
    "logirrel": lambda b, g: softplus(b - g),  # -log of the irrelevant part's share, as published for text
}


def cdep_penalty(model, x, masks, *, mode="softmax", classes="all", target=0.0, check=CHECK, max_batch=4096, **options):
    """The penalty on what the masked parts of images or rows x (N,...) add to the logits: a scalar with a graph.

    masks: one (H,W) for all, several (Q,H,W), or one or several for each image (N,Q,H,W); 1 where nothing may matter. A
    mask of one image that is empty has no part in the mean.
    mode: "softmax", the share e^b / (e^b + e^g) of the relevant part b; "l1", |b|; "logirrel", softplus(b - g).
    classes: "all" logits, or the label of each image (N,). target: what the score should be, |score - target| is
    penalized: the mean over images and logits, summed over the masks. check: compare the parts' sum with the
    output, at the model's first step and every so many (a number), at each (True), or never (False).
    options: `relu`, `detach_share`, `kwargs`, `masked` and `logits` of `cd`.
    Raises UserError for masks that do not fit, and an operation without a rule.
    """
    masks, given = _tensor(masks, "masks"), x
    x = Given(x, options.get("kwargs"), options.get("masked", 0)).x
    masks = masks[None] if masks.shape == x.shape[2:] or x.ndim == 2 and masks.shape == x.shape[1:] else masks
    present = check_masks(masks, x).flatten(2).any(2)
    scores = cd(model, given, masks, check=_due(model, check), max_batch=max_batch, **options)
    return _penalty(scores, mode, classes, target, present)


def cdep_text_penalty(
    model,
    ids,
    token_masks,
    *,
    lengths=None,
    mode="logirrel",
    classes="all",
    target=0.0,
    check=CHECK,
    max_batch=4096,
    **options,
):
    """The same of tokens ids (N,T) with masks (N,Q,T) or (Q,T); the mean over the sentences whose mask is not empty.

    As published, the embedding learns nothing from it.
    """
    masks = check_masks(token_masks, ids.to(torch.get_default_dtype()), "token_masks")
    _check_mode(mode)
    some = masks.any(2).any(1)
    for given, name in ((lengths, "lengths"), (None if isinstance(classes, str) else classes, "classes")):
        if given is not None and _tensor(given, name).shape != (len(ids),):
            raise UserError(
                f"got {len(ids)} sentences and {name} {tuple(_tensor(given, name).shape)}: give one for each"
            )
    if not some.any():
        return ids.new_zeros((), dtype=torch.get_default_dtype())
    lengths = None if lengths is None else torch.as_tensor(lengths)[some.cpu()]
    own = {"lengths": lengths, "check": _due(model, check), "max_batch": max_batch, "detach_embedding": True}
    if options.get("kwargs"):
        own["kwargs"] = Given(ids, options["kwargs"]).rows(some.nonzero()[:, 0], None)[1]
    options = {**options, **own}
    scores = cd_text(model, ids[some], masks[some], **options)
    classes = classes if isinstance(classes, str) else torch.as_tensor(classes)[some.cpu()]
    return _penalty(scores, mode, classes, target, masks[some].any(2))


def cdep_parts_penalty(
    model, b, g, *, mode="softmax", classes="all", target=0.0, check=CHECK, max_batch=4096, **options
):
    """The same for what comes after activations that are in two parts already, b and g (N,Q,...), as `cd_parts`."""
    scores = cd_parts(model, b, g, check=_due(model, check), max_batch=max_batch, **options)
    return _penalty(scores, mode, classes, target, b.flatten(2).any(2))


def _penalty(scores, mode, classes, target, present):
    _check_mode(mode)
    number("target", target)
    if isinstance(classes, str) and classes == "all":
        values = MODES[mode](scores.rel, scores.irrel)  # (N,Q,K)
    else:
        C = max(2, scores.rel.shape[2])
        classes = _classes(classes, len(scores.rel), C, "all").to(scores.rel.device)
        values = _of_class(scores, mode, classes)
    values = (values - target).abs().mean(2)
    kept = present.to(values)
    return ((values * kept).sum(0) / kept.sum(0).clamp_min(1)).sum()


def _output(model, inputs, kwargs, logits):
    """The logits of a module, in evaluation mode, or of a function; a forward works on copies and leaves nothing."""
    if not isinstance(model, nn.Module):
        return called(model, (inputs,))
    model = behind(model)
    with as_evaluated(model):
        return logits_of(called(model, (inputs,), kwargs), model, logits, len(inputs))


def _due(model, check):
    """Whether this call compares the parts' sum with the output: True, False, or the first and every check-th."""
    if isinstance(check, bool):
        return check
    number("check", check, least=1, whole=True)
    with _lock:
        _calls[model] = _calls.get(model, 0) + 1
        return _calls[model] % check == 1 or check == 1


def _check_mode(mode):
    if not isinstance(mode, str) or mode not in MODES:
        raise UserError(f"mode is {mode!r}: give one of {', '.join(MODES)}")


def _tensor(given, name):
    """Raises UserError for what is no array of numbers."""
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: got a {type(given).__name__}; give a tensor or array") from error


def _classes(classes, N, C, other=None):
    """One class (N,) for each input. Raises UserError for anything else. other: what else may be given."""
    or_else = f", or {other!r}" if other else ""
    if isinstance(classes, str):
        raise UserError(f"classes is {classes!r}: give one for each input{or_else}")
    found = _tensor(classes, "classes").reshape(-1)
    if len(found) != N:
        raise UserError(f"got {N} inputs and {len(found)} classes: give one for each{or_else}")
    if ((found < 0) | (found >= C) | (found != found.long())).any():
        raise UserError(f"classes hold {found.min().item()} to {found.max().item()}: give whole numbers, 0 to {C - 1}")
    return found.long()


def _of_class(scores, mode, classes):
    """(N,Q,1), of one class for each input; of one logit, class 1's is that logit and class 0's its negative."""
    if scores.rel.shape[2] > 1:
        index = classes.reshape(-1, 1, 1).expand(-1, scores.rel.shape[1], 1)
        return MODES[mode](scores.rel.gather(2, index), scores.irrel.gather(2, index))
    sign = (2 * classes - 1).to(scores.rel.dtype).reshape(-1, 1, 1)
    return MODES[mode](sign * scores.rel, sign * scores.irrel)


def log_probabilities(logits):
    """log p (N,K) of logits (N,K), of one logit (N,2)."""
    logits = logits.reshape(len(logits), -1)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.log_softmax(1)


def _mask_like(mask, x):
    """A mask, one for all images or one for each, as numbers that fit x (N,...). Raises UserError for others."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or not len(x):
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise UserError(f"x is {what}: give floating-point inputs, at least one")
    if not torch.is_grad_enabled():
        raise UserError("gradients are off: call this penalty outside torch.no_grad()")
    masks, inside = _tensor(mask, "mask"), tuple(x.shape[2:] if x.ndim > 2 else x.shape[1:])
    shared = tuple(masks.shape) == inside
    if not shared and tuple(masks.shape) not in ((len(x), *inside), tuple(x.shape)):
        raise UserError(
            f"the mask has the shape {tuple(masks.shape)}: give {inside}, or {(len(x), *inside)}, one for each input"
        )
    return check_masks(masks[None] if shared else masks[:, None], x, "mask")[:, 0]


def rrr_penalty(model, x, y, mask, *, form="ross", kwargs=None, logits=None):
    """Right for the right reasons: the squared gradient in the mask, a scalar with a graph.

    mask (H,W) for all or (N,H,W). form: "ross", of sum_k log p_k, the mean over the images, as in the paper (y has no
    part in it); "official", of the batch's mean cross-entropy, summed over channels before it is squared, and over the
    images, as in CDEP's code: it falls with the size of the batch. The model is in evaluation mode meanwhile, so that
    neither BatchNorm nor dropout notices. kwargs, logits: as for `cd`.
    """
    if form not in ("ross", "official"):
        raise UserError(f"form is {form!r}: give ross or official")
    masks = _mask_like(mask, x)
    inputs = x.detach().requires_grad_()
    logs = log_probabilities(_output(model, inputs, kwargs, logits))
    if form == "ross":
        gradient = torch.autograd.grad(logs.sum(), inputs, create_graph=True)[0]
        return (gradient * masks).square().flatten(1).sum(1).mean()
    loss = -logs.gather(1, _classes(y, len(x), logs.shape[1]).to(logs.device)[:, None]).mean()
    gradient = torch.autograd.grad(loss, inputs, create_graph=True)[0]
    if x.ndim > 2:
        gradient, masks = gradient.sum(1), masks.amax(1)
    return (gradient * masks).square().sum()


def eg_penalty(model, x, y, mask, references, n=50, *, generator=None, max_batch=4096, logits=None):
    """Expected gradients: the attributions in the mask, a scalar with a graph.

    For each image n references x' are drawn from `references` (M,...), and a point between on the way to x; its
    attribution is the mean of (x - x') dp_y/dx. The sum of its size over the mask, the mean over the images. The model
    is in evaluation mode meanwhile. generator: of the draws, which also depend on max_batch; None is torch's own.
    """
    number("n", n, least=1, whole=True)
    masks, N, total = _mask_like(mask, x), len(x), 0.0
    if not isinstance(references, torch.Tensor) or references.shape[1:] != x.shape[1:] or not len(references):
        shape = tuple(references.shape) if isinstance(references, torch.Tensor) else type(references).__name__
        raise UserError(f"references are {shape}: give at least one input like those of x {tuple(x.shape)}")
    y = _tensor(y, "classes").to(x.device)
    each = max(1, max_batch // N)
    for start in range(0, n, each):
        k = min(each, n - start)
        picked = torch.randint(len(references), (k, N), generator=generator)
        alpha = torch.rand(k, N, *[1] * (x.ndim - 1), generator=generator, dtype=x.dtype).to(x.device)
        way = x[None] - references[picked.to(references.device)]
        inputs = (x[None] - (1 - alpha) * way).reshape(k * N, *x.shape[1:]).detach().requires_grad_()
        p = log_probabilities(_output(model, inputs, None, logits)).exp()
        p = p.gather(1, _classes(y, N, p.shape[1]).repeat(k)[:, None]).sum()
        gradient = torch.autograd.grad(p, inputs, create_graph=True)[0].reshape(k, *x.shape)
        total = total + (gradient * way).sum(0)
    return ((total / n) * masks).abs().flatten(1).sum(1).mean()
