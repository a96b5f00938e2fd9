"""Find hooks that are misspelt, unreachable or of a wrong signature, before anything trains.

nlbench calls a hook by its name and passes its arguments by position. A method with another name is
legal Python, and is never called; so what it should have done does not happen, in silence.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nlbench.contract.returned import described
from nlbench.errors import MethodError

# The hooks of a method and their arguments after `self`, in the order in which they are passed.
HOOKS: dict[str, tuple[str, ...]] = {
    "loss": ("logits", "batch"),
    "loss_and_grad": ("logits", "batch"),
    "prepare": ("run",),
    "on_epoch_start": ("run", "epoch"),
    "batches": ("run", "epoch"),
    "training_step": ("run", "batch"),
    "on_epoch_end": ("run", "epoch"),
    "predict": ("run", "images"),
    "own_labels": (),
    "gradient_parts": ("logits", "batch"),
}

# What nlbench and torch call on every method besides its hooks.
_OF_TORCH: dict[str, tuple[str, ...]] = {"train": ("mode",), "eval": ()}
_RESERVED = {
    *_OF_TORCH,
    *("to", "apply", "requires_grad_", "state_dict", "load_state_dict", "register_buffer"),
    *("parameters", "named_parameters", "buffers", "named_buffers", "modules", "named_modules"),
    *("children", "named_children", "get_extra_state", "set_extra_state"),
}

# Names that other libraries give to such hooks -> what does it here.
_ELSEWHERE = {
    "on_epoch_start": (
        "on_epoch_begin on_train_epoch_start on_train_epoch_begin on_training_epoch_start "
        "epoch_start epoch_begin on_start_epoch before_epoch before_train_epoch start_epoch "
        "begin_epoch pre_epoch"
    ),
    "on_epoch_end": (
        "on_train_epoch_end on_training_epoch_end training_epoch_end train_epoch_end epoch_end "
        "on_epoch_finish on_epoch_finished on_end_epoch after_epoch after_train_epoch end_epoch "
        "finish_epoch post_epoch on_validation_epoch_end validation_epoch_end "
        "on_validation_epoch_start on_validation_start on_validation_end on_train_end on_fit_end "
        "on_training_end after_training after_run"
    ),
    "prepare": (
        "on_train_start on_train_begin on_training_start on_training_begin on_fit_start "
        "on_fit_begin before_training before_train before_run before_fit setup prepare_training "
        "prepare_data configure_model"
    ),
    "training_step": (
        "train_step train_batch training_batch train_one_batch on_train_batch_start "
        "on_train_batch_begin on_train_batch_end on_batch_start on_batch_begin on_batch_end "
        "on_step_start on_step_begin on_step_end on_training_step_start on_training_step_end "
        "training_step_end before_batch after_batch before_step after_step optimizer_step "
        "optimiser_step on_before_backward on_after_backward on_before_optimizer_step "
        "on_before_zero_grad optimize_parameters optimise_parameters manual_backward"
    ),
    "predict": (
        "validation_step test_step predict_step on_validation_batch_end prediction inference "
        "infer predict_logits"
    ),
    "loss": (
        "criterion compute_loss loss_fn loss_function loss_func get_loss calc_loss "
        "calculate_loss training_loss train_loss"
    ),
    "batches": "train_dataloader train_dataloaders get_dataloader dataloader train_loader",
    "prepare, where run.optimise(params, factory, name) registers an optimiser": (
        "configure_optimizers configure_optimisers configure_optimizer configure_optimiser "
        "build_optimizer make_optimizer get_optimizer optimizers lr_scheduler_step"
    ),
    "loss for the training and predict for the evaluation": "forward",
}
_MEANT: dict[str, str] = {}
for _hook, _names in _ELSEWHERE.items():
    _MEANT |= dict.fromkeys(_names.split(), _hook)


# ---- Classes ------------------------------------------------------------------------------------


def class_problems(cls: type) -> list[MethodError]:
    """Return what is wrong with the hooks that a method's class defines or inherits.

    Looks at the class and at its parents, as far as they are neither torch's nor nlbench's own.
    """
    found = _members(cls)
    problems: list[MethodError] = []
    for name, value in found.items():
        if name in HOOKS or name in _RESERVED:
            problems += _wrong_hook(name, value, found)
        elif not name.startswith("_"):
            problems += _never_called(name, value, cls)
    return [*problems, *_wrong_settings(cls)]


def _members(cls: type) -> dict[str, Any]:
    """Return what a class and its own parents define, by name. The class nearest to it counts."""
    found: dict[str, Any] = {}
    for owner in _own_classes(cls):
        for name, value in vars(owner).items():
            found.setdefault(name, value)
    return found


def _own_classes(cls: type) -> Iterator[type]:
    """Yield a class and its parents, without those of nlbench, torch and Python."""
    others = ("torch", "builtins", "abc", "typing")
    for owner in cls.__mro__:
        module = owner.__module__
        if module != "nlbench.method" and module.partition(".")[0] not in others:
            yield owner


def _wrong_hook(name: str, value: Any, members: dict[str, Any]) -> Iterator[MethodError]:
    """Yield what is wrong with a hook's kind or signature."""
    takes = HOOKS.get(name) or _OF_TORCH.get(name)
    head = f"def {name}({', '.join(('self', *(takes or ())))})"
    if value is None and name == "loss_and_grad":
        return
    if isinstance(value, staticmethod | classmethod | property):
        kind = type(value).__name__
        yield MethodError(f"{name} is a {kind}", f"make it a plain method, {head}")
        return
    if isinstance(value, functools.partialmethod):
        return
    if not isinstance(value, types.FunctionType):
        what = f"{name} is {described(value)} and no method of the class"
        if name in HOOKS:
            yield MethodError(what, f"write {head}, and call it from there")
        elif not callable(value):
            yield MethodError(f"{what}; it hides torch's {name}()", "give it another name")
        return

    place = _place(value)
    if inspect.isgeneratorfunction(value) and name != "batches":
        what = f"{place}: {name} contains `yield`, so calling it does not execute it"
        yield MethodError(what, "leave the yield out, or move it to batches")
    elif inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        yield MethodError(f"{place}: {name} is async, so nothing awaits it", f"write {head}")
    elif takes is not None and (wrong := _wrong_signature(name, value, takes, members)):
        yield MethodError(f"{place}: {wrong}", f"write {head}")


def _wrong_signature(
    name: str, function: types.FunctionType, takes: tuple[str, ...], members: dict[str, Any]
) -> str:
    """Describe why a hook cannot be called with its arguments, or return an empty string."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""

    names = list(signature.parameters)
    written = f"{name}{signature}"
    if names[:1] and names[0] in {"logits", "batch", "run", "epoch", "images"}:
        return f"{written} lacks `self`"
    for i, (wanted, given) in enumerate(zip(takes, names[1:], strict=False)):
        if given != wanted and given in takes and wanted in names:
            return (
                f"{written} takes its arguments in another order: the argument {i + 1} that it "
                f"gets is `{wanted}`"
            )

    # A plan of the method's own decides what a step gets after `run`.
    free = name == "training_step" and "batches" in members
    calls: list[tuple[str, ...]] = [()] if name == "train" else []
    calls.append(takes[:1] if free else takes)
    for call in calls:
        try:
            if free:
                signature.bind_partial(None, *call)
            else:
                signature.bind(None, *call)
        except TypeError as error:
            passed = ", ".join(call) or "no argument"
            return f"{written} cannot be called: nlbench passes {passed}, and Python says: {error}"
    return ""


def _never_called(name: str, value: Any, cls: type) -> Iterator[MethodError]:
    """Yield a problem for a public method that looks like a hook and that nothing calls."""
    if not isinstance(value, types.FunctionType | staticmethod | classmethod):
        return
    meant = _meant(name)
    if not meant or _is_used(name, cls):
        return

    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if name in _MEANT and meant not in HOOKS:
        hint = f"What it should do belongs into {meant}"
    else:
        hint = f"Did you mean {meant}?"
    yield MethodError(
        f"{_place(function)}: nothing calls {name}: it is no hook of nlbench. {hint}",
        f"rename it; there are: {', '.join(HOOKS)}. A helper's name begins with _",
    )


def _meant(name: str) -> str:
    """Return the hook that a name probably stands for, or an empty string."""
    plain = _plain(name)
    for known, hook in _MEANT.items():
        if _plain(known) == plain:
            return hook
    for hook in HOOKS:
        if _plain(hook) == plain:
            return hook
    near = difflib.get_close_matches(name.lower(), HOOKS, n=1, cutoff=0.8)
    return near[0] if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _wrong_settings(cls: Any) -> Iterator[MethodError]:
    """Yield what is wrong with the class attributes that nlbench reads."""
    if isinstance(cls.told, str):
        yield MethodError(
            f"told is the text {cls.told!r}", f"make it a tuple: told = ({cls.told!r},)"
        )
    networks = cls.num_networks
    if isinstance(networks, bool) or not isinstance(networks, int) or networks < 1:
        yield MethodError(
            f"num_networks is {networks!r}", "give the number of networks, for example 2"
        )


# ---- Is a method used by the code around it? ----------------------------------------------------


def _is_used(name: str, cls: type) -> bool:
    """Return whether the sources of a class and its parents use the name, outside of itself."""
    files = {module_file for owner in _own_classes(cls) if (module_file := _file_of(owner))}
    return any(name in _used_names(path) for path in files)


def _file_of(cls: type) -> Path | None:
    # A class that was made without a file has no sources.
    try:
        return Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return None


@functools.lru_cache(maxsize=64)
def _used_names(path: Path) -> frozenset[str]:
    """Return the attributes and names that a file reads, and the texts that may name one.

    A function that calls itself, or the same function of its parent class, does not count.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return frozenset()

    used: set[str] = set()
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, around = waiting.pop()
        for child in ast.iter_child_nodes(node):
            inside = around
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = child.name
            waiting.append((child, inside))
        used |= {name for name in _names_in(node) if name != around}
    return frozenset(used)


def _names_in(node: ast.AST) -> Iterator[str]:
    """Yield what a node of a syntax tree reads by name."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        on_parent = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
        if not on_parent:
            yield node.attr
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self":
        yield "forward"


def _place(function: Any) -> str:
    """Return the file and the line of a function."""
    code = inspect.unwrap(function).__code__
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"


# ---- Methods that are built ---------------------------------------------------------------------


def refuse_instance(method: Any) -> None:
    """Refuse a method that was built without its base, without a loss, or that hides a hook.

    Raises: MethodError.
    """
    name = type(method).__name__
    if "_modules" not in vars(method) or getattr(method, "task", None) is None:
        raise MethodError(
            f"the constructor of {name} does not call super().__init__(task)",
            "make it the first line of __init__",
        )

    held: dict[str, Any] = {**vars(method), **method._modules}
    for hook in (*HOOKS, *sorted(_RESERVED)):
        if hook not in held:
            continue
        value = held[hook]
        # The base class says in this way that a method has no such form, and so may a method that
        # has one for some of its hyperparameters.
        if hook == "loss_and_grad" and value is None:
            continue
        # A function in the place of a hook is called like one.
        if hook in HOOKS and callable(value) and not isinstance(value, nn.Module):
            continue
        _refuse_hidden(hook, value)

    base = next(owner for owner in type(method).__mro__ if owner.__module__ == "nlbench.method")
    given = [hook for hook in ("loss", "training_step") if hook in held]
    given += [hook for hook in ("loss", "training_step") if _overrides(method, base, hook)]
    if not given and method.loss_and_grad is None:
        raise MethodError(
            f"{name} has neither loss nor training_step", _fix_without_loss(type(method))
        )


def _refuse_hidden(hook: str, value: Any) -> None:
    what = f"self.{hook} = {described(value)}"
    if isinstance(value, nn.Module | Tensor) and hook in HOOKS:
        args = ", ".join(("self", *HOOKS[hook]))
        raise MethodError(
            f"{what} does not become the hook {hook}",
            f"give the attribute another name, and call it in def {hook}({args})",
        )
    owner = "the hook" if hook in HOOKS else "torch's"
    raise MethodError(f"{what} hides {owner} {hook}()", "give the attribute another name")


def _overrides(method: Any, base: type, hook: str) -> bool:
    return getattr(type(method), hook) is not getattr(base, hook)


def _fix_without_loss(cls: type) -> str:
    """Return what to do for a method without a loss, from what its file has."""
    path = _file_of(cls)
    functions = _functions_outside(path) if path else []
    for hook in ("loss", "training_step"):
        if hook in functions:
            return f"indent the function {hook} of this file, so that it belongs to the class"
    return "define loss(self, logits, batch), or the whole training_step"


def _functions_outside(path: Path) -> Iterable[str]:
    """Return the names of the functions of a file that belong to no class."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
