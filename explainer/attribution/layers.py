"""The head of a model: which of its linear layers it is, and whether it computes what is explained.

What is explained are the logits features @ weight' + bias. On every batch these are compared with what the layer gave,
after all hooks, and that with the logits that the model returns.
"""

from collections.abc import Mapping

import torch
from torch import nn

from config import UserError
from explainer.attribution.checks import first_line

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model):
    """The module behind those of torch that compile a model, or spread it over processes or devices."""
    while isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        if isinstance(model, WRAPPERS):
            model = model.module
        elif isinstance(model._modules.get("_orig_mod"), nn.Module):
            model = model._orig_mod
        else:
            break
    return model


def head_of(model, layer=-1):
    """The linear layer by name, by its number among the linear layers, or itself; and its name.

    Raises UserError, with the names of the linear layers, where there is no such layer or it is not linear.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is {type(model).__name__}: give a torch.nn.Module, or arrays to from_arrays")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            "the model is a ScriptModule, whose layers take no hooks: give the module that it was made from"
        )
    if not isinstance(layer, (int, str, nn.Module)) or isinstance(layer, bool):
        raise UserError(
            f"layer is {type(layer).__name__}: give its name or number; labels come with the loader, and the layer may "
            "be given itself"
        )
    _check_parameters(model)
    modules = {_clean(name): unwrapped(m) for name, m in model.named_modules(remove_duplicate=False)}
    linear, seen = {}, set()
    for name, module in modules.items():
        if isinstance(module, nn.Linear) and module not in seen:
            linear[name] = module
            seen.add(module)
    known = ", ".join(linear) or "none"
    if isinstance(layer, int):
        names = list(linear)
        if not -len(names) <= layer < len(names):
            raise UserError(f"layer {layer} does not exist: the linear layers are {known}")
        return linear[names[layer]], names[layer]
    if isinstance(layer, nn.Module):
        inside = [name for name, module in modules.items() if module is unwrapped(layer)]
        if not inside:
            raise UserError(
                f"the layer given, {type(layer).__name__}, is no part of the model: the linear ones are {known}"
            )
        layer = inside[0]
    if _clean(layer) not in modules:
        raise UserError(f"layer {layer!r} does not exist: the linear layers are {known}")
    found = modules[_clean(layer)]
    if not isinstance(found, nn.Linear):
        raise UserError(f"layer {layer!r} is {type(found).__name__}, not linear: the linear layers are {known}")
    return found, _clean(layer)


def _clean(name):
    """A module's name without those of compiled modules."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _check_parameters(model):
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise UserError(f"{name} of the model has no shape yet: run the model on a batch first")
        if tensor.is_meta:
            raise UserError(f"{name} of the model is on the meta device, which holds no numbers: load the model")
        if hasattr(tensor, "full_tensor") or type(model).__name__ == "FullyShardedDataParallel":
            raise UserError("the parameters of the model are spread over the ranks: gather them into a module on each")


def logits_of(output, read=None):
    """The logits in a model's output: it, its `logits`, or read(output). Raises UserError where that is no tensor."""
    if read is not None:
        try:
            found = read(output)
        except Exception as error:  # of a function that is not ours
            raise UserError(
                f"logits could not read the model's output, {type(output).__name__} ({first_line(error)}): give a "
                "function of it that returns a tensor"
            ) from error
        if not isinstance(found, torch.Tensor):
            raise UserError(f"logits returned {type(found).__name__}: give a function that returns a tensor")
        return found
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    found = output if isinstance(output, torch.Tensor) else getattr(output, "logits", output)
    if not isinstance(found, torch.Tensor):
        raise UserError(
            f"the model returns {type(output).__name__}: say where its logits are, logits=lambda output: output[0] or "
            "the like"
        )
    return found


class Watch:
    """What the head is given and gives in one pass of the model, by hooks that are called last; a context.

    weight, bias: the head's, as they are in evaluation mode, copied in the first pass.
    """

    def __init__(self, head, layer):
        self.head, self.layer = head, layer
        self.seen, self.weight, self.bias = [], None, None

    def __enter__(self):
        self._handles = [
            self.head.register_forward_pre_hook(self._before, with_kwargs=True),
            self.head.register_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()

    def _before(self, module, given, named):
        given = [*given, *named.values()]
        if len(given) != 1 or not isinstance(given[0], torch.Tensor):
            raise UserError(f"layer {self.layer} is given {len(given)} inputs: it must be given the features alone")
        self.seen.append([given[0].detach().clone(), None, None])

    def _after(self, module, given, output):
        if not isinstance(output, torch.Tensor):
            raise UserError(f"layer {self.layer} gives {type(output).__name__}: it must give the logits")
        features = self.seen[-1][0]
        if self.weight is None:
            weight, bias = module.weight.detach(), module.bias
            if not weight.is_floating_point() or weight.ndim != 2 or weight.layout != torch.strided:
                what = f"{weight.dtype} {tuple(weight.shape)}"
                raise UserError(f"the weight of layer {self.layer} is {what}: give the model before it was quantized")
            self.weight, self.bias = weight.clone(), None if bias is None else bias.detach().clone()
        if features.ndim and features.shape[-1] == self.weight.shape[1]:
            product = nn.functional.linear(features, self.weight, self.bias)  # here, where autocast is as the layer's
        else:
            product = None
        self.seen[-1][1:] = [output.detach().clone(), product]

    def check(self, output):
        """The features of the pass. Raises UserError unless the layer and the model gave features @ weight' + bias."""
        if len(self.seen) != 1:
            raise UserError(
                f"layer {self.layer} ran {len(self.seen)} times in one pass of the model: it must run once; explain "
                "another layer"
            )
        features, logits, product = self.seen[0]
        if product is None or product.shape != logits.shape:
            raise UserError(
                f"layer {self.layer} makes {tuple(logits.shape)} of {tuple(features.shape)}, and its weight is "
                f"{tuple(self.weight.shape)}: explain a plain linear layer"
            )
        allowed = self._rounding(features, logits, product)
        rows = ~torch.isfinite(features).all(-1, keepdim=True)  # what is not finite is named later, with its row
        difference = _beyond(product, logits, allowed, rows)
        if difference is not None:
            raise UserError(
                f"layer {self.layer}, {type(self.head).__name__}, gives what differs from features @ weight.T + bias "
                f"by {difference}: its forward or a hook does more; explain a plain linear layer"
            )
        self._check_output(logits, output, rows)
        return features

    def _rounding(self, features, logits, product):
        """By how much two ways to the same logits may differ in their precision, in each of them."""
        wide = torch.promote_types(product.dtype, torch.float32)
        eps = max(torch.finfo(x.dtype).eps for x in (product, logits) if x.is_floating_point())
        scale = features.to(wide).norm(dim=-1, keepdim=True) * self.weight.to(wide).norm(dim=1)
        if self.bias is not None:
            scale = scale + self.bias.to(wide).abs()
        share = 4 * eps / self.weight.shape[1] ** 0.5 + 16 * torch.finfo(wide).eps
        return 8 * eps * product.to(wide).abs() + share * scale

    def _check_output(self, logits, output, rows):
        if output.numel() != logits.numel():
            raise UserError(
                f"layer {self.layer} gives {tuple(logits.shape)} and the model {tuple(output.shape)}: the layer must "
                "be its last one"
            )
        ways = [output.reshape(logits.shape)] if output.shape == logits.shape or logits.ndim == 2 else []
        if logits.ndim > 2 and output.ndim == logits.ndim and output.movedim(1, -1).shape == logits.shape:
            ways.append(output.movedim(1, -1))  # (b,C,...), as torch's losses take it
        ways = ways or [output.reshape(logits.shape)]
        eps = max(torch.finfo(x.dtype).eps for x in (output, logits) if x.is_floating_point())
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = [_beyond(way, logits, 8 * eps * wide.abs(), rows) for way in ways]
        if None not in found:
            raise UserError(
                f"the model's output differs from that of layer {self.layer} by {found[0]}: the layer must be "
                "the last operation before the loss; give a model that returns logits, not probabilities"
            )


def _beyond(a, b, allowed, rows):
    """The largest difference, written out, where any but those of some rows is above what is allowed; else None."""
    wide = allowed.dtype
    difference = (a.to(wide) - b.to(wide)).abs()
    wrong = ~((difference <= allowed) | (a == b) | rows)
    if not wrong.any():
        return None
    return f"{float(difference[wrong].amax()):.3g} (logits up to {float(b[wrong].abs().amax()):.3g})"
