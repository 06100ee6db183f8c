"""One pass of a model over split inputs: through a trace of torch.fx, or through the model's own forward."""

import contextlib
import weakref

import torch
from torch import fx

from config import UserError
from explainer.decomposition import registry
from explainer.decomposition.rules.pooling import Picks
from explainer.decomposition.scores import TOLERANCES
from explainer.decomposition.split import UnsupportedOp, splits
from models.training import out_of_memory

_VALUES = bool, int, float, str, type(None)
_traces = weakref.WeakKeyDictionary()  # model -> (its modules and the classes with rules, GraphModule)


class _Tracer(fx.Tracer):
    """Modules with a rule of their own, and those of torch, are one operation each."""

    def is_leaf_module(self, module, name):
        return registry.module_rule(module) is not None or super().is_leaf_module(module, name)


class _Interpreter(fx.Interpreter):
    """Runs a trace with Splits: functions and methods find their rules themselves, modules by their class."""

    def __init__(self, trace, own_rules):
        super().__init__(trace, garbage_collect_values=True)
        self.own_rules, self.extra_traceback = own_rules, False

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if module in self.own_rules:
            return self.own_rules[module](module, *args, **kwargs)
        with patched(module, self.own_rules) if any(module.children()) else contextlib.nullcontext():
            return _called(module, target, args, kwargs)


def _called(module, name, args, kwargs, forward=None):
    """A module on Splits: by the rule of its class, or by its own forward, whose operations have theirs."""
    found, some = registry.module_rule(module), next(splits((args, kwargs)), None)
    if found is None or some is None:
        try:
            return (forward or module)(*args, **kwargs)
        except UnsupportedOp as error:
            raise UnsupportedOp(f"{name} ({type(module).__name__}): {error}") from None
    result = found(some.rules, module, *args, **kwargs)
    some.rules.record(name, result)
    return result


def traced(model):
    """The model's trace, kept while the model and the rules are the same; None where it cannot be traced."""
    state, known = (_state(model), tuple(registry.MODULES)), _traces.get(model)
    if known is None or known[0] != state:
        before = set(vars(model))
        try:
            tracer = _Tracer()
            known = state, fx.GraphModule(model, tracer.trace(model))
        except UserError:
            raise
        except Exception:  # a forward that depends on its data: torch.fx raises whatever that comes to
            known = state, None
        finally:
            for name in set(vars(model)) - before:  # constants of the forward, which the trace has copied
                delattr(model, name)
        _traces[model] = known
    return known[1]


def _state(model):
    """What a trace may depend on: modules, parameters, buffers and other attributes, by value or by identity."""
    found = []
    for name, module in model.named_modules():
        own = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        own |= module._parameters | module._buffers
        found.append((name, id(module), tuple((k, v if isinstance(v, _VALUES) else id(v)) for k, v in own.items())))
    return tuple(found)


def run(model, inputs, own_rules):
    """The model's output for inputs with Splits among them.

    own_rules: {module: function(module, *args)} that stand in for modules of this model, such as its embedding.
    """
    trace = traced(model) if model not in own_rules else None
    with unfused(), _explained(UnsupportedOp, "the model's forward does with an activation what has no rule"):
        if trace is not None and len([n for n in trace.graph.nodes if n.op == "placeholder"]) >= len(inputs):
            return _Interpreter(trace, own_rules).run(*inputs)
        with patched(model, own_rules):
            return model(*inputs)


@contextlib.contextmanager
def _explained(kind, said):
    """Errors of a forward as one of ours, in a line; running out of memory stays what it is."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError) as error:
        if out_of_memory(error):
            raise
        raise kind(f"{said}: {' '.join(str(error).split())[:200]}") from error


@contextlib.contextmanager
def patched(model, own_rules):
    """The model's modules that have rules, with those in place of their forward; afterwards as they were."""
    changed = []
    try:
        for name, module in model.named_modules():
            own = own_rules.get(module)
            if own is None and registry.module_rule(module) is None:
                continue
            if "forward" in vars(module):
                raise UserError(f"the forward of {name or 'the model'} is an attribute: give a model as its class is")
            forward = module.forward
            module.forward = _replaced(module, name, forward, own)
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _replaced(module, name, forward, own):
    if own is not None:
        return lambda *args, **kwargs: own(module, *args, **kwargs)
    return lambda *args, **kwargs: _called(module, name, args, kwargs, forward)


def watched(model, inputs):
    """The model's output on plain inputs, and what every maximum picks."""
    shapes = ", ".join(f"{tuple(v.shape)} {v.dtype}" for v in inputs)
    with Picks() as picks, unfused(), _explained(UserError, f"the model's forward fails on inputs {shapes}"):
        output = model(*(v.clone() for v in inputs))  # a forward may change its inputs in place
    if any(isinstance(module, torch.nn.TransformerEncoder) for module in model.modules()):
        _check_fused(getattr(output, "logits", output), model, inputs)
    return output, picks.found


@contextlib.contextmanager
def unfused():
    """Without the fused layers of torch's transformers, which no rule sees; afterwards as it was."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _check_fused(output, model, inputs):
    """Raise UserError where the fused encoder, which gives 0 at padded tokens, gives the model another output."""
    if torch.is_grad_enabled() or not torch.backends.mha.get_fastpath_enabled() or not torch.is_tensor(output):
        return
    fused = model(*(v.clone() for v in inputs))
    fused = getattr(fused, "logits", fused)
    difference = float((fused - output).abs().max())
    if not difference <= TOLERANCES.get(output.dtype, 1e-3) * max(1.0, float(output.abs().max())):
        raise UserError(
            f"torch's fused TransformerEncoder gives 0 at padded tokens, and so another output than in training, by "
            f"{difference:.2g}: leave padded tokens out of what follows it, or give it enable_nested_tensor=False"
        )


@contextlib.contextmanager
def as_evaluated(model):
    """The model in evaluation mode, without TF32; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        model.eval()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise
        for module, mode in modes:
            module.training = mode
