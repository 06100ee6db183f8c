"""Views of Splits and work in place: what is written through a view changes its base, and the other views, as in torch.

A view remembers its root and how torch makes it from there. A write puts the new parts into a copy of the root's by
torch's own views, so that autograd knows of them, and makes the other views anew.
"""

import weakref

import torch

from config import UserError

VIEWS = frozenset(
    "view view_as reshape reshape_as flatten ravel unflatten contiguous permute transpose t swapaxes swapdims movedim "
    "moveaxis squeeze unsqueeze narrow select diagonal expand expand_as broadcast_to unfold detach chunk split "
    "split_with_sizes tensor_split unbind __getitem__ to type_as float double half bfloat16 cpu cuda adjoint".split()
)
# What changes how a tensor is seen, and no entry.
RESHAPED = frozenset("t_ transpose_ swapaxes_ swapdims_ squeeze_ unsqueeze_ detach_".split())


class NotAView(UserError):
    """A write through what torch may have copied."""


def linked(found, x, function, args, kwargs):
    """Views among an operation's results, which share the memory of x, remember how they came from it."""
    if isinstance(found, tuple):
        for place, part in enumerate(found):
            _link(part, x, lambda whole, place=place: function(whole, *args, **kwargs)[place])
    elif found is not x:
        _link(found, x, lambda whole: function(whole, *args, **kwargs))


def _link(y, x, step):
    if y.b.untyped_storage().data_ptr() != x.b.untyped_storage().data_ptr():
        return  # a copy
    root = x if x.root is None else x.root
    y.root, y.steps = root, (*x.steps, step)
    root.views = [view for view in root.views if view() is not None] + [weakref.ref(y)]


def reshaped(x, y, function, args, kwargs):
    """x, which is seen otherwise from now on: as y, that function(x, ...) gives."""
    if x.root is None:
        root = x.like(x.b, x.g)
        root.views = [*x.views, weakref.ref(x)]
        for view in (v() for v in x.views):
            if view is not None:
                view.root = root
        x.root, x.views = root, ()
    x.steps = (*x.steps, lambda whole: function(whole, *args, **kwargs))
    x.b, x.g, x.w = y.b, y.g, y.w
    return x


def write(x, new):
    """x takes the parts of `new`, in its own shape and precision, and so do its base and the views of it."""
    b, g = (part.to(x.b.dtype).expand(x.b.shape) for part in (new.b, new.g))
    if x.root is None:
        x.b, x.g, x.w = b, g, new.w
        root = x
    else:
        root, same = x.root, new.w is x.w
        w = new.w.to(x.b.dtype).expand(x.b.shape)
        x.b, x.g = b, g
        if not same:
            root.w = _put(full(root), x.steps, w)
        root.b, root.g = _put(root.b.clone(), x.steps, b), _put(root.g.clone(), x.steps, g)
    _renew(root)
    return x


def _put(whole, steps, part):
    view = _follow(whole, steps)
    if view.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        raise NotAView("the model writes in place through what torch may have copied: write to the activation itself")
    view.copy_(part)
    return whole


def _follow(part, steps):
    for step in steps:
        part = step(part)
    return part


def _renew(root):
    for view in [v() for v in root.views]:
        if view is not None:
            view.b, view.g = _follow(root.b, view.steps), _follow(root.g, view.steps)
            view.w = _follow(full(root), view.steps)


def full(split):
    """Its w, laid out in memory as its parts are."""
    return torch.empty_like(split.b, requires_grad=False).copy_(split.w.detach().expand_as(split.b))
