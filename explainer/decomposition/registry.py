"""The rules of contextual decomposition: one for each operation, by its name or by the type of a module."""

from torch.nn.functional import unfold

from config import UserError

FUNCTIONS, MODULES = {}, {}


def register_rule(*targets):
    """Add a rule for operations, as a decorator. targets: names or functions of torch, or classes of modules.

    The rule of a function is called as rule(rules, *args, **kwargs) with the operation's own arguments, activations
    being `Split`s; that of a class of modules as rule(rules, module, *args, **kwargs). It returns a Split whose parts
    sum to what the operation gives for b + g (or tuples of them). rules: `Rules`, with `bias` to share a constant out.
    A name covers the function, the tensor's method and the variant in place: "relu" is `F.relu`, `torch.relu`,
    `x.relu()` and `x.relu_()`.
    """

    for target in targets:
        module = getattr(target, "__module__", None) or "torch"
        if not isinstance(target, (str, type)) and not module.startswith(("torch", "_operator")):
            raise UserError(f'register_rule got {name_of(target)}: say what the rule is for, as @register_rule("relu")')

    def register(rule):
        for target in targets:
            if isinstance(target, type):
                MODULES[target] = rule
            else:
                FUNCTIONS[target if isinstance(target, str) else name_of(target)] = rule
        return rule

    return register


def name_of(function):
    """The name of a function of torch or a tensor's method: operators are what they stand for."""
    name = getattr(function, "__name__", str(function))
    if function is unfold:  # not `Tensor.unfold`
        return "im2col"
    return _OPERATORS.get(name, name)


def function_rule(function):
    """The rule of a function, or None."""
    return FUNCTIONS.get(name_of(function))


def base_of_inplace(name):
    """The rule of the operation that `name`, as relu_, does in place, or None."""
    return FUNCTIONS.get(name[:-1]) if name.endswith("_") and not name.startswith("__") else None


def module_rule(module):
    """The rule of a module's class, or of the nearest class that it inherits from, or None."""
    return next((MODULES[kind] for kind in type(module).__mro__ if kind in MODULES), None)


_OPERATORS = {
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add_",
    "__sub__": "sub",
    "__rsub__": "rsub",
    "__isub__": "sub_",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__imul__": "mul_",
    "__truediv__": "div",
    "__itruediv__": "div_",
    "__idiv__": "div_",  # torch's own name for it
    "__neg__": "neg",
    "__pow__": "pow",
    "__matmul__": "matmul",
    "__abs__": "abs",
    "__gt__": "gt",
    "__lt__": "lt",
    "__ge__": "ge",
    "__le__": "le",
    "__eq__": "eq",
    "__ne__": "ne",
    "greater": "gt",
    "less": "lt",
    "greater_equal": "ge",
    "less_equal": "le",
    "not_equal": "ne",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
}
