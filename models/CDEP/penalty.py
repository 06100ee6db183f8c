"""Penalties on explanations: what is masked must not matter.

CDEP (Rieger, Singh, Murdoch, Yu, ICML 2020) penalizes the contextual decomposition of the masked part,

    loss = cross-entropy + lambda * sum over masks of |score(b, g) - target|,

right for the right reasons (RRR; Ross, Hughes, Doshi-Velez, 2017) the gradient in the masked part, and expected
gradients (EG; Erion et al., 2021) the attributions there. All are batched: one backward with the cross-entropy.
"""

import torch
from torch.nn.functional import softplus

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition import cd, cd_parts, cd_text
from explainer.decomposition.scores import check_masks

MODES = {
    "softmax": lambda b, g: torch.sigmoid(b - g),  # e^b / (e^b + e^g), as published for images
    "l1": lambda b, g: b.abs(),
    "logirrel": lambda b, g: softplus(b - g),  # -log of the irrelevant part's share, as published for text
}


def cdep_penalty(model, x, masks, *, mode="softmax", classes="all", target=0.0, check=False, max_batch=4096, **options):
    """The penalty on what the masked parts of images or rows x (N,...) add to the logits: a scalar with a graph.

    masks: one (H,W) for all, several (Q,H,W), or one or several for each image (N,Q,H,W); 1 where nothing may matter.
    mode: "softmax", the share e^b / (e^b + e^g) of the relevant part b; "l1", |b|; "logirrel", softplus(b - g).
    classes: "all" logits, or the label of each image (N,). target: what the score should be, |score - target| is
    penalized: the mean over images and logits, summed over the masks. check: compare the parts' sum with the output.
    options: `relu` and `detach_share` of `cd`.
    Raises UserError for masks that do not fit, and an operation without a rule.
    """
    masks = torch.as_tensor(masks)
    masks = masks[None] if masks.shape == x.shape[2:] or x.ndim == 2 and masks.shape == x.shape[1:] else masks
    scores = cd(model, x, masks, check=check, max_batch=max_batch, **options)
    return _penalty(scores, mode, classes, target, None)


def cdep_text_penalty(
    model,
    ids,
    token_masks,
    *,
    lengths=None,
    mode="logirrel",
    classes="all",
    target=0.0,
    check=False,
    max_batch=4096,
    **options,
):
    """The same of tokens ids (N,T) with masks (N,Q,T) or (Q,T); the mean over the sentences whose mask is not empty.

    As published, the embedding learns nothing from it.
    """
    masks = check_masks(token_masks, ids.to(torch.get_default_dtype()), "token_masks")
    some = masks.any(2).any(1)
    if not some.any():
        return ids.new_zeros((), dtype=torch.get_default_dtype())
    lengths = None if lengths is None else torch.as_tensor(lengths)[some.cpu()]
    options = {**options, "lengths": lengths, "check": check, "max_batch": max_batch, "detach_embedding": True}
    scores = cd_text(model, ids[some], masks[some], **options)
    classes = classes if isinstance(classes, str) else torch.as_tensor(classes)[some.cpu()]
    return _penalty(scores, mode, classes, target, masks[some].any(2))


def cdep_parts_penalty(
    model, b, g, *, mode="softmax", classes="all", target=0.0, check=False, max_batch=4096, **options
):
    """The same for what comes after activations that are in two parts already, b and g (N,Q,...), as `cd_parts`."""
    scores = cd_parts(model, b, g, check=check, max_batch=max_batch, **options)
    return _penalty(scores, mode, classes, target, None)


def _penalty(scores, mode, classes, target, present):
    if mode not in MODES:
        raise UserError(f"mode is {mode!r}: give one of {', '.join(MODES)}")
    number("target", target)
    values = (MODES[mode](scores.rel, scores.irrel) - target).abs()  # (N,Q,K)
    if not isinstance(classes, str):
        classes = torch.as_tensor(classes, device=values.device)
        if len(classes) != len(values):
            raise UserError(f"got {len(values)} inputs and {len(classes)} classes: give one for each, or 'all'")
        values = _of_class(scores, mode, classes) if scores.rel.shape[2] == 1 else _picked(values, classes)
    elif classes != "all":
        raise UserError(f"classes is {classes!r}: give 'all', or one for each input")
    values = values.mean(2)
    if present is None:
        return values.mean(0).sum()
    kept = present.to(values.dtype)
    return ((values * kept).sum(0) / kept.sum(0).clamp_min(1)).sum()


def _picked(values, classes):
    index = classes.long().reshape(-1, 1, 1).expand(-1, values.shape[1], 1)
    return values.gather(2, index)


def _of_class(scores, mode, classes):
    """Of one logit: class 1's is the logit, class 0's its negative."""
    sign = (2 * classes - 1).to(scores.rel.dtype).reshape(-1, 1, 1)
    return MODES[mode](sign * scores.rel, sign * scores.irrel)


def log_probabilities(logits):
    """log p (N,K) of logits (N,K), of one logit (N,2)."""
    logits = logits.reshape(len(logits), -1)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.log_softmax(1)


def _mask_like(mask, x):
    """A mask, one for all images or one for each, as numbers that fit x."""
    masks = torch.as_tensor(mask)
    shared = masks.shape == x.shape[2:] or x.ndim == 2 and masks.shape == x.shape[1:]
    return check_masks(masks[None] if shared else masks[:, None], x, "mask")[:, 0]


def rrr_penalty(model, x, y, mask, *, form="ross"):
    """Right for the right reasons: the squared gradient in the mask, a scalar with a graph.

    mask (H,W) for all or (N,H,W). form: "ross", of sum_k log p_k, the mean over the images, as in the paper (y has no
    part in it); "official", of the batch's mean cross-entropy, summed over channels before it is squared, and over the
    images, as in CDEP's code: it falls with the size of the batch.
    """
    if form not in ("ross", "official"):
        raise UserError(f"form is {form!r}: give ross or official")
    masks = _mask_like(mask, x)
    inputs = x.detach().requires_grad_()
    logs = log_probabilities(model(inputs))
    if form == "ross":
        gradient = torch.autograd.grad(logs.sum(), inputs, create_graph=True)[0]
        return (gradient * masks).square().flatten(1).sum(1).mean()
    loss = -logs.gather(1, torch.as_tensor(y, device=logs.device).long()[:, None]).mean()
    gradient = torch.autograd.grad(loss, inputs, create_graph=True)[0]
    if x.ndim > 2:
        gradient, masks = gradient.sum(1), masks.amax(1)
    return (gradient * masks).square().sum()


def eg_penalty(model, x, y, mask, references, n=50, *, generator=None, max_batch=4096):
    """Expected gradients: the attributions in the mask, a scalar with a graph.

    For each image n references x' are drawn from `references` (M,...), and a point between on the way to x; its
    attribution is the mean of (x - x') dp_y/dx. The sum of its size over the mask, the mean over the images.
    """
    number("n", n, least=1, whole=True)
    masks, y = _mask_like(mask, x), torch.as_tensor(y, device=x.device).long()
    N, total = len(x), 0.0
    each = max(1, max_batch // N)
    for start in range(0, n, each):
        k = min(each, n - start)
        picked = torch.randint(len(references), (k, N), generator=generator)
        alpha = torch.rand(k, N, *[1] * (x.ndim - 1), generator=generator, dtype=x.dtype).to(x.device)
        way = x[None] - references[picked.to(references.device)]
        inputs = (x[None] - (1 - alpha) * way).reshape(k * N, *x.shape[1:]).detach().requires_grad_()
        p = log_probabilities(model(inputs)).exp().gather(1, y.repeat(k)[:, None]).sum()
        gradient = torch.autograd.grad(p, inputs, create_graph=True)[0].reshape(k, *x.shape)
        total = total + (gradient * way).sum(0)
    return ((total / n) * masks).abs().flatten(1).sum(1).mean()
