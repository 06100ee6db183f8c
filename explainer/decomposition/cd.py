"""Contextual decomposition of any classifier: what a part of the input adds to each logit.

    x = m x + (1 - m) x  ►  b + g through every operation  ►  logits = rel + irrel

Murdoch, Liu, Yu (ICLR 2018) for the LSTM; Singh, Murdoch, Yu (ICLR 2019) for convolutions and images. All masks of a
call go through the model together, `max_batch` rows at a time.
"""

import torch

from config import UserError
from explainer.attribution.checks import number
from explainer.decomposition import passes
from explainer.decomposition.embeddings import Tokens, embedding_of
from explainer.decomposition.given import Given, check_rows
from explainer.decomposition.rules.base import Misaligned, Rules
from explainer.decomposition.scores import Scores, check_inputs, check_masks, check_sum, logits_of
from explainer.decomposition.split import Split, UnsupportedOp
from models.training import enough_memory

CHOICES = {"relu": ("acd", "shapley"), "zero_rule": ("coverage", "half"), "bias_rule": ("mask", "irrelevant")}
MAX_BATCH = 256
LESS = "use torch.no_grad(), a smaller max_batch, or fewer masks or inputs at once"  # what needs less memory


def cd(
    model,
    x,
    masks,
    *,
    kwargs=None,
    masked=0,
    logits=None,
    relu="acd",
    zero_rule="coverage",
    tol=None,
    check=True,
    max_batch=MAX_BATCH,
    detach_share=False,
):
    """Scores of masks over inputs, for a model of feed-forward operations.

    model: gives logits (N,K) or (N,) of x. x (N,C,...) or (N,F). masks: (Q,...) over the positions of every input, one
    for each input (N,Q,...), or with the channels (N,Q,C,...); booleans, or numbers in [0,1].
    x may be a tuple of inputs, with kwargs, {name: value}, beside them; masked: the place, or the name, of the one that
    the masks are over. The others are constants; tensors of N rows are taken row by row. logits: a function that finds
    them in the model's output; without it they are the output, its .logits or its ["logits"].
    relu: "acd" (Singh et al., 2019) or "shapley" (Murdoch et al., 2018). zero_rule: "coverage", under which a full mask
    leaves exactly nothing irrelevant and an empty one nothing relevant, or "half", the official code's. tol: how far
    the parts' sum may be from the output (1e-3 in float32, 1e-8 in float64, of the largest logit); check=False does
    not look. max_batch: rows that go through the model at once. detach_share: the bias's shares are constants in the
    gradient.
    Returns `Scores`, with a graph where gradients are enabled. The model is in evaluation mode meanwhile and left as it
    was. Raises UserError for bad masks, and `UnsupportedOp` for an operation without a rule.
    """
    given = Given(x, kwargs, masked)
    x = check_inputs(given.x)
    masks = check_masks(masks, x)
    settings = _settings(relu=relu, zero_rule=zero_rule, detach_share=detach_share)

    def parts(rules, rows, columns):
        return *given.rows(rows, _masked(x[rows], masks[rows, columns], rules)), {}

    return _scores(model, given, parts, masks.shape[1], settings, tol if check else torch.inf, max_batch, logits)


def cd_text(
    model,
    ids,
    token_masks,
    *,
    lengths=None,
    embedding="auto",
    kwargs=None,
    logits=None,
    bias_rule="mask",
    relu="acd",
    zero_rule="coverage",
    tol=None,
    check=True,
    max_batch=MAX_BATCH,
    detach_share=False,
    detach_embedding=False,
):
    """Scores of sets of tokens, for a model that embeds its inputs: recurrent, convolutional, with attention, or sums.

    ids (N,T): tokens. lengths (N,): given to the model as its second argument, and what a mask may not go beyond.
    token_masks: (Q,T) or (N,Q,T). embedding: the nn.Embedding or EmbeddingBag whose vectors are split, or its name;
    "auto": the only one. bias_rule: "mask", what the biases of an LSTM, GRU or RNN do alone is relevant at the mask's
    tokens (Singh et al., 2019), so that the mask of all tokens gives the prediction; "irrelevant", never (Murdoch et
    al., 2018). kwargs, logits: as for `cd`, such as {"attention_mask": ...}. detach_embedding: no gradient goes to the
    embedding. The rest is as for `cd`.
    """
    ids = check_inputs(ids, "ids")
    if ids.ndim != 2 or ids.is_floating_point():
        raise UserError(f"ids are {ids.dtype} {tuple(ids.shape)}: give whole numbers (N, T)")
    masks = check_masks(token_masks, ids.to(torch.get_default_dtype()), "token_masks")
    length = torch.full((len(ids),), ids.shape[1], device="cpu") if lengths is None else torch.as_tensor(lengths)
    if length.shape != (len(ids),) or not ((length >= 1) & (length <= ids.shape[1])).all():
        raise UserError(
            f"lengths are {length.tolist()}: give one for each of {len(ids)} sentences, 1 to {ids.shape[1]}"
        )
    beyond = torch.arange(ids.shape[1], device="cpu") >= length.cpu()[:, None]
    if (masks.cpu() * beyond[:, None]).any():
        raise UserError("token_masks: a mask is longer than its sentence; give 0 beyond the length")
    settings = _settings(relu=relu, zero_rule=zero_rule, bias_rule=bias_rule, detach_share=detach_share)
    layer = embedding_of(model, embedding, (torch.nn.Embedding, torch.nn.EmbeddingBag))
    given = Given((ids,) if lengths is None else (ids, torch.as_tensor(lengths)), kwargs)

    def parts(rules, rows, columns):
        some = None if lengths is None else length.to(rows.device)[rows]
        own = {layer: Tokens(ids[rows], masks[rows, columns], some, rules, detach_embedding)}
        return *given.rows(rows, ids[rows]), own

    return _scores(model, given, parts, masks.shape[1], settings, tol if check else torch.inf, max_batch, logits)


def cd_layers(model, x, mask, **options):
    """What every operation makes of one input under one mask: a list of (name, b, g), in the order of the forward.

    x (C,...) or (F,), mask (...) over its positions; options: relu and zero_rule, as for `cd`.
    """
    x = check_inputs(x[None])
    masks = check_masks(torch.as_tensor(mask)[None], x, "the mask")
    nodes = []

    def parts(rules, rows, columns):
        rules.nodes = nodes
        return (_masked(x, masks[:, 0], rules),), {}, {}

    _scores(model, Given(x), parts, 1, _settings(**options), torch.inf, 1)
    return [(name, b[0], g[0]) for name, b, g in nodes if len(b)]


def cd_parts(model, b, g, *, coverage=0.5, tol=None, check=True, max_batch=MAX_BATCH, **options):
    """Scores of activations that are in two parts already, such as a frozen network's features, by what follows.

    b, g (N,Q,...): relevant and irrelevant parts; their sum must be the same for all Q. coverage: the share of the
    input that the masks cover, for constants where both parts are 0. options: relu, zero_rule, detach_share, as for
    `cd`. Returns `Scores`.
    """
    b, g = check_inputs(b, "parts"), check_inputs(g, "parts")
    if b.shape != g.shape or b.ndim < 3:
        raise UserError(f"the parts are {tuple(b.shape)} and {tuple(g.shape)}: give two (N, Q, ...)")
    whole = (b + g).detach()
    if not torch.allclose(whole, whole[:, :1].expand_as(whole), rtol=1e-3, atol=1e-3 * float(whole.abs().max())):
        raise UserError("the parts do not have the same sum for every mask: give the parts of one activation")

    def parts(rules, rows, columns):
        w = torch.full((len(rows), *[1] * (b.ndim - 2)), float(coverage), dtype=b.dtype, device=b.device)
        return (Split(b[rows, columns], g[rows, columns], w, rules),), {}, {}

    given = Given((b + g)[:, 0])
    return _scores(model, given, parts, b.shape[1], _settings(**options), tol if check else torch.inf, max_batch)


def _masked(x, m, rules):
    """Inputs (R,...) split by their masks, of the same shape up to a broadcast channel."""
    w = m.flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1))
    return Split(m * x, (1 - m) * x, w, rules)


def _settings(**settings):
    for name, allowed in CHOICES.items():
        value = settings.get(name, allowed[0])
        if value not in allowed:
            raise UserError(f"{name} is {value!r}: give {' or '.join(allowed)}")
    return settings


def _scores(model, given, parts, Q, settings, tol, max_batch, read=None):
    """`Scores` of Q masks for each input. parts(rules, rows, columns): args, kwargs and own rules of some pairs."""
    number("max_batch", max_batch, least=1, whole=True)
    if tol is not None and tol != torch.inf:
        number("tol", tol, least=0)
    model, N = passes.behind(model), len(given.x)
    with passes.as_evaluated(model), enough_memory(LESS):
        output, picks = passes.watched(model, given.args, given.kwargs)
        logits = logits_of(output, model, read, N)
        pairs = torch.arange(N * Q, device=given.x.device)

        def split(picks):
            for some in pairs.split(max_batch):
                rules = Rules(**settings, picks=picks, rows=some // Q)
                args, kwargs, own = parts(rules, some // Q, some % Q)
                found = logits_of(passes.run(model, args, own, rules, kwargs), model, read, len(some))
                if not isinstance(found, Split):
                    raise UnsupportedOp("the model's output does not depend on the split input: is it another model's?")
                rules.finish()
                yield found.b, found.g

        try:
            found = list(split(picks))
        except Misaligned:  # a maximum of a constant, or of what a rule stands for: picks are those of b + g then
            found = list(split(None))
        rel, irrel = (torch.cat(part).reshape(N, Q, -1) for part in zip(*found))
        if tol != torch.inf:
            precision = next((p.dtype for p in model.parameters()), logits.dtype)
            check_sum(rel, irrel, logits, tol, precision)
            if max(N, min(N * Q, max_batch)) > 1:
                check_rows(model, given, read, logits, tol, precision)
    return Scores(rel, irrel, logits)
