"""Builds the torch modules that a checkpoint's pickle describes, attribute by attribute.

A state_dict holds only tensors. Everything else that determines an answer (activations, eps,
pooling, shortcuts, upsampling) is in the attributes of the pickled modules. Every attribute is
read, and an unknown one is refused by name: nothing is guessed.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from visavis_export.checkpoints.description import ACTIVATIONS
from visavis_export.checkpoints.pickled import Inert, shown
from visavis_export.errors import CheckpointError

# Attributes that do not affect the computation: mode, number, source, name and size of a layer.
_DESCRIBING = {"training", "i", "f", "type", "np"}
# nn.Module's attributes that hold code.
_HOOKS = (
    *("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"),
)
# Attributes that later releases added, with the values that older ones imply.
_ADDED = {"n": 3, "add": False}
_SIDE = range(1, 33)
_SMALL = range(33)


def children(module: Inert, *names: str) -> list[Inert]:
    """Return a module's children by name; raises CheckpointError unless it has exactly these."""
    stored = module.state.get("_modules")
    if not isinstance(stored, dict) or set(stored) != set(names):
        raise CheckpointError(
            f"{shown(module)} holds {shown(stored)}; expected is {', '.join(names) or 'nothing'}. "
            "Export a network with other parts to ONNX with its own project's code"
        )
    return [_module(stored[name]) for name in names]


def sequence(module: Inert) -> list[Inert]:
    """Return the modules of a Sequential or a ModuleList."""
    if kind(module) not in ("Sequential", "ModuleList"):
        raise unknown(module)
    attributes(module)
    return [_module(child) for child in module.state["_modules"].values()]


def kind(module: Inert) -> str:
    """Return a module's class, without its path if the path is one of torch's or YOLO's."""
    path, _, name = module.class_path.rpartition(".")
    known = ("torch.nn.modules.", "models.common", "models.yolo", "ultralytics.nn.", "torchvision.")
    return name if path.startswith(known) else module.class_path


def attributes(module: Inert, **known: Any) -> dict[str, Any]:
    """Return the attributes that affect a module's computation.

    known: the allowed values of each attribute, as a container or a predicate. Raises
    CheckpointError for an attribute that is unknown or has another value, and for hooks.
    """
    fields = module.state
    if not isinstance(fields, dict) or not all(
        isinstance(fields.get(part), dict) for part in ("_parameters", "_buffers", "_modules")
    ):
        raise CheckpointError(f"{shown(module)} is not a module")
    if hooks := [hook for hook in _HOOKS if fields.get(hook)]:
        raise CheckpointError(
            f"{shown(module)} has {hooks[0]}, which run code; save the model without hooks"
        )
    own = {
        key: value
        for key, value in fields.items()
        if not str(key).startswith("_") and key not in _DESCRIBING
    }
    for key, value in own.items():
        allowed = known.get(key, ())
        fits = allowed(value) if callable(allowed) else _is_in(value, allowed)
        if not fits:
            raise CheckpointError(
                f"{shown(module)} has {shown(key)} = {_text(value)}, which is unknown; export a "
                "network with other parts to ONNX with its own project's code"
            )
    return own


def require_same(module: nn.Module, stored: Inert, unimportant: tuple[str, ...]) -> None:
    """Raise CheckpointError unless a pickled module has a module's class and attributes.

    unimportant: attributes that may differ. An attribute that the pickled module lacks must have
    the value that older releases imply.
    """
    if kind(stored) != type(module).__name__:
        raise CheckpointError(
            f"it has a module {shown(stored.class_path)} instead of a {type(module).__name__}; it "
            "is another model"
        )
    own = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key not in _DESCRIBING and key not in unimportant
    }
    anything = dict.fromkeys(unimportant, lambda _: True)
    read = attributes(stored, **{key: (value,) for key, value in own.items()}, **anything)
    children(stored, *(name for name, _ in module.named_children()))
    for key in own.keys() - read.keys() - _ADDED.keys():
        required(read, stored, key)
    for key in (_ADDED.keys() & own.keys()) - read.keys():
        if own[key] != _ADDED[key]:
            raise _missing(stored, key)


def require_equal(module: nn.Module, stored: Inert) -> None:
    """Raise CheckpointError unless a pickled module and all its children equal a module's.

    Ignores a ResNet's constructor arguments, which its children reflect, and attributes that only
    training reads.
    """
    built = ("inplanes", "dilation", "groups", "base_width")
    unimportant = built if type(module).__name__ == "ResNet" else ("inplace", "momentum")
    require_same(module, stored, unimportant)
    for name, child in module.named_children():
        require_equal(child, stored.state["_modules"][name])


def required(own: dict[str, Any], module: Inert, *names: str) -> list[Any]:
    """Return attributes by name; raises CheckpointError if one is missing."""
    for name in names:
        if name not in own:
            raise _missing(module, name)
    return [own[name] for name in names]


def _missing(module: Inert, name: str) -> CheckpointError:
    return CheckpointError(f"{shown(module)} lacks its attribute {name}; save it again")


def unknown(module: Inert) -> CheckpointError:
    """Return the error for a module of an unknown class."""
    return CheckpointError(
        f"the module {shown(module.class_path)} is unknown; export a network with other parts to "
        "ONNX with its own project's code"
    )


def conv2d(module: Inert) -> nn.Conv2d:
    """Return a convolution with uninitialised weights."""
    if kind(module) != "Conv2d":
        raise unknown(module)
    own = attributes(
        module,
        in_channels=is_natural,
        out_channels=is_natural,
        kernel_size=_pair(_SIDE),
        stride=_pair(_SIDE),
        padding=_pair(_SMALL),
        dilation=_pair(_SIDE),
        transposed=(False,),
        output_padding=((0, 0),),
        groups=is_natural,
        padding_mode=("zeros",),
    )
    c_in, c_out, groups = required(own, module, "in_channels", "out_channels", "groups")
    size, stride, padding, dilation = required(
        own, module, "kernel_size", "stride", "padding", "dilation"
    )
    if c_in % groups or c_out % groups:
        raise CheckpointError(f"{shown(module)} has {c_in} and {c_out} channels in {groups} groups")
    has_bias = module.state["_parameters"].get("bias") is not None
    return nn.Conv2d(c_in, c_out, size, stride, padding, dilation, groups, has_bias)


def batch_norm(module: Inert) -> nn.BatchNorm2d:
    """Return a batch norm with the pickled eps and momentum."""
    # Of several GPUs; in evaluation it is the same.
    if kind(module) not in ("BatchNorm2d", "SyncBatchNorm"):
        raise unknown(module)
    own = attributes(
        module,
        process_group=(None,),
        num_features=is_natural,
        eps=_fraction,
        momentum=lambda value: value is None or _fraction(value),
        affine=(True,),
        track_running_stats=(True,),
    )
    features, eps, momentum = required(own, module, "num_features", "eps", "momentum")
    return nn.BatchNorm2d(features, eps, momentum)


def activation(module: Inert) -> nn.Module:
    """Return an activation with the pickled slope."""
    if kind(module) not in ACTIVATIONS:
        raise CheckpointError(
            f"the activation {shown(module.class_path)} is unknown; supported are "
            f"{', '.join(ACTIVATIONS)}"
        )
    own = attributes(module, inplace=(True, False), negative_slope=_fraction)
    match kind(module):
        case "SiLU":
            return nn.SiLU()
        case "ReLU":
            return nn.ReLU()
        case "LeakyReLU":
            return nn.LeakyReLU(*required(own, module, "negative_slope"))
        case "Hardswish":
            return nn.Hardswish()
    return nn.Identity()


def max_pool(module: Inert) -> nn.MaxPool2d:
    """Return a max pooling; raises CheckpointError unless it keeps the size of the map."""
    if kind(module) != "MaxPool2d":
        raise unknown(module)
    own = attributes(
        module,
        kernel_size=_SIDE,
        stride=(1,),
        padding=_SMALL,
        dilation=(1,),
        return_indices=(False,),
        ceil_mode=(False,),
    )
    size, stride, padding = required(own, module, "kernel_size", "stride", "padding")
    if size != 2 * padding + 1:
        raise CheckpointError(
            f"{shown(module)} has kernel_size = {size} and padding = {padding}, which changes the "
            "size of the map; this is unsupported"
        )
    return nn.MaxPool2d(size, stride, padding)


def upsample(module: Inert) -> nn.Upsample:
    """Return an upsampling by 2 or 4."""
    own = attributes(
        module,
        name=("Upsample",),
        size=(None,),
        scale_factor=lambda value: _is_in(value, (2.0, 4.0)),
        mode=("nearest", "bilinear"),
        align_corners=(None, False, True),
        recompute_scale_factor=(None, False),
    )
    factor, mode, corners = required(own, module, "scale_factor", "mode", "align_corners")
    return nn.Upsample(None, factor, mode, corners)


def linear(module: Inert) -> nn.Linear:
    """Return a linear layer with uninitialised weights."""
    if kind(module) != "Linear":
        raise unknown(module)
    own = attributes(module, in_features=is_natural, out_features=is_natural)
    return nn.Linear(*required(own, module, "in_features", "out_features"))


def is_natural(value: object) -> bool:
    """Return True for a positive integer of plausible size, such as a number of channels."""
    return type(value) is int and 0 < value < 1 << 17


def _fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _pair(allowed: range) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, tuple) and len(value) == 2 and all(_is_in(one, allowed) for one in value)
    )


def _is_in(value: object, allowed: Any) -> bool:
    """Return True if a value is among the allowed ones; True and 1 are different values."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def _module(stored: object) -> Inert:
    if not isinstance(stored, Inert):
        raise CheckpointError(f"it has {shown(stored)} instead of a module")
    return stored


def _text(value: object) -> str:
    return repr(shown(value)) if isinstance(value, str) else shown(value)
