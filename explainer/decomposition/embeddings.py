"""Embedded tokens in two parts: where a model's tokens become vectors, the masks of tokens split them."""

import torch
import torch.nn.functional as F
from torch import nn

from config import UserError
from explainer.decomposition.split import Split, UnsupportedOp


def embedding_of(model, wanted, kinds=(nn.Embedding,)):
    """The module that embeds the tokens. Raises UserError where it is not clear which."""
    known = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    if isinstance(wanted, nn.Module):
        return wanted
    if wanted == "auto" and len(known) == 1:
        return next(iter(known.values()))
    if wanted not in known:
        names = ", ".join(known) or "none"
        raise UserError(f"embedding is {wanted!r}, and the model's are: {names}; give one of them")
    return known[wanted]


class Tokens:
    """Some rows of tokens. ids, masks (R,T).

    shares (R,T): the masks, and beyond a row's length its mean: what fills a row up is a constant, and split as such.
    """

    def __init__(self, ids, masks, lengths, rules, detach):
        self.ids, self.masks, self.rules, self.detach = ids, masks, rules, detach
        self.shares = masks
        if lengths is not None:
            beyond = torch.arange(ids.shape[1], device=masks.device) >= lengths[:, None].to(masks.device)
            self.shares = torch.where(beyond, (masks.sum(1) / lengths.to(masks.device))[:, None], masks)

    def __call__(self, module, tokens, *args, **kwargs):
        """What the embedding gives for them, as a Split: the rule in its module's place."""
        bag = isinstance(module, nn.EmbeddingBag)
        found = self._bag(module, tokens, *args, **kwargs) if bag else self._vectors(module, tokens)
        self.rules.record("embedding", found)
        return found

    def _vectors(self, module, tokens):
        """(R,T,d), or (T,R,d) where the model has its steps first."""
        vectors = type(module).forward(module, tokens)  # not the rule in its place
        vectors = vectors.detach() if self.detach else vectors
        w = self.shares.to(vectors.dtype)[:, :, None]
        same, turned = tokens.shape == self.ids.shape, tokens.shape == self.ids.T.shape
        if turned and (not same or (torch.equal(tokens, self.ids.T) and not torch.equal(tokens, self.ids))):
            w = w.transpose(0, 1)
        elif not same:
            raise UnsupportedOp(
                f"the embedding is given tokens {tuple(tokens.shape)}: the masks are {tuple(self.masks.shape)}"
            )
        return Split(w * vectors, (1 - w) * vectors, w, self.rules)

    def _bag(self, module, input, offsets=None, per_sample_weights=None):
        """(R,d): sums, means or maxima of bags that are rows."""
        R, T = self.ids.shape
        rows = offsets is None or torch.equal(offsets[:R], T * torch.arange(R, device=offsets.device))
        if input.numel() != R * T or not rows or (offsets is None and input.shape != (R, T)):
            raise UnsupportedOp(
                f"EmbeddingBag over {tuple(input.shape)} has no rule: give it bags that are rows {R, T}"
            )
        tokens = input.reshape(R, T)
        vectors = F.embedding(tokens, module.weight, None, module.max_norm, module.norm_type)
        vectors = vectors.detach() if self.detach else vectors
        kept = torch.ones_like(tokens, dtype=torch.bool) if module.padding_idx is None else tokens != module.padding_idx
        m, kept = self.shares.to(vectors.dtype)[:, :, None], kept[:, :, None]
        if module.mode == "max":
            place = vectors.masked_fill(~kept, -torch.inf).argmax(1, keepdim=True)
            b, g = ((part * kept).gather(1, place)[:, 0] for part in (m * vectors, (1 - m) * vectors))
        else:
            weights = kept.to(vectors.dtype)
            if module.mode == "mean":
                weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
            if per_sample_weights is not None:
                weights = weights * per_sample_weights.reshape(R, T, 1)
            b, g = ((part * weights).sum(1) for part in (m * vectors, (1 - m) * vectors))
        return Split(b, g, self.shares.to(vectors.dtype).mean(1, keepdim=True), self.rules)
