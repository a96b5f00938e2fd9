"""The likely fix for an error that a method raised."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from nlbench.errors import MethodError, UserError

# A pattern in the message of an error -> the likely fix. Most of these errors are raised by torch.
# The first pattern that is found counts.
_FIXES = {
    r"not told|'noise_rate'|KeyError: 'T'": (
        "declare the privileged information that the method uses: "
        "told = ('noise_rate',) or told = ('T',)"
    ),
    r"has neither loss nor training_step": (
        "define loss(self, logits, batch), or the whole training_step"
    ),
    r"networks: define predict": (
        "with num_networks = 2, define predict(self, run, images), which combines both outputs"
    ),
    r"(Missing|Unexpected) key\(s\) in state_dict|size mismatch for": (
        "a state is restored right after prepare(): register buffers and modules in the "
        "constructor or in prepare, always with the same names and shapes"
    ),
    r"backward through the graph a second time": (
        "something that is kept from one step to the next holds the graph of an earlier step: "
        "store it detached, value.detach(), or compute it under torch.no_grad()"
    ),
    r"not Batch\b|'Batch' object is not|and 'Batch'|'Batch' and": (
        "the hook gets the whole batch: the given labels are batch.labels, the positions "
        "batch.index, the images batch.images"
    ),
    r"'Batch' object has no attribute": (
        "a batch has images, labels, index, view(k) and strong(k); the given labels are "
        "batch.labels, and no method gets the true ones"
    ),
    r"'Tensor' object has no attribute '(labels|index|images|view)'": (
        "the arguments are passed by position: loss(self, logits, batch), "
        "training_step(self, run, batch), predict(self, run, images)"
    ),
    r"'(Run|RunState)' object has no attribute": (
        "a method may use what nlbench.method.Run documents"
    ),
    r"'Task' object has no attribute": (
        "a task has num_train, num_classes, labels, epochs, steps_per_epoch, batch_size, device "
        "and scaled(epochs, of)"
    ),
    r"missing 1 required positional argument: 'task'": "call super().__init__(task), with the task",
    r"before Module\.__init__|__init__\(\) call|no attribute '_(modules|buffers|parameters)'": (
        "call super().__init__(task) first"
    ),
    r"attribute '\w+' already exists": (
        "torch or nlbench has an attribute of this name: choose another name"
    ),
    r"property '\w+' of .* has no setter": (
        "the class defines a property of this name: choose another name for the value"
    ),
    r"takes \d+ positional arguments? but \d+ (was|were) given": (
        "hooks are called by position: loss(self, logits, batch), prepare(self, run), "
        "on_epoch_start(self, run, epoch), predict(self, run, images)"
    ),
    r"Expected all tensors to be on the same device|at least two devices|same device as": (
        "a tensor was made on the CPU: keep it with self.register_buffer(name, tensor) in the "
        "constructor, or make it with device=logits.device"
    ),
    r"must match the size of tensor|could not be broadcast|[Ss]hape mismatch": (
        "logits are (B, C), and batch.labels are (B,) numbers of classes and no one-hot rows: "
        "F.one_hot(batch.labels, C) gives (B, C), x[:, None] gives (B, 1)"
    ),
    r"[Ee]xpected .*Long\b|type LongTensor|used as indices must be long|index.*int64": (
        "numbers of classes and positions are int64, as batch.labels and batch.index are: .long()"
    ),
    r"[Ee]xpected .*dtype|[Ee]xpected scalar type|same dtype": (
        "two tensors differ in dtype; logits are float32: convert with .to(logits.dtype)"
    ),
    r"out of range|out of bounds|[Tt]arget \d+ is out": (
        "batch.index counts the training examples, from 0 to num_train - 1, and batch.labels the "
        "classes, from 0 to num_classes - 1: a memory has num_train rows, and is indexed by "
        "batch.index"
    ),
    r"grad can be implicitly created only for scalar|does not require grad": (
        "backward_step takes a 0-d loss that depends on a network's output"
    ),
    r"leaf Variable that requires grad": (
        "change a parameter under torch.no_grad(), or keep the value in a buffer"
    ),
    r"modified by an inplace operation": "do not write into logits or batch.images; make a copy",
    r"requires grad\. Use": "detach it first: tensor.detach().cpu().numpy()",
    r"Boolean value of Tensor": (
        "choose by example with torch.where(condition, a, b), or ask .any() or .all()"
    ),
    r"\bSystemExit\b|\bKeyboardInterrupt\b": (
        "a method must not end the process: raise a ValueError that says what is wrong"
    ),
}

# Errors that only a certain call can be the reason of: a pattern in the line, one in the message.
_FIXES_BY_LINE = {
    (r"validate\(", r"None"): "run.validate() returns None if the protocol has no validation part",
    (r"\bself\.\w+\(", r"'NoneType' object"): "does that function end with `return`?",
}


def fix_for(message: str, line: str = "") -> str:
    """Return the likely fix for an error's message, or an empty string.

    Args:
        line: the line of the method's file that failed, as far as it is known.
    """
    for (in_line, in_message), fix in _FIXES_BY_LINE.items():
        if re.search(in_line, line) and re.search(in_message, message):
            return fix
    for pattern, fix in _FIXES.items():
        if re.search(pattern, message):
            return fix
    return ""


def explained(error: BaseException, path: Path) -> str:
    """Return an error as "Kind: message", with the line of the file `path` and the likely fix.

    Only the first line of the message is completed; further lines follow it. An error for users
    says itself what to do, and one without a traceback does not come from a method.
    """
    kind = type(error).__name__
    text = f"{kind}: {error}".rstrip(": ")
    own = own_frames(error, path)
    if isinstance(error, MethodError):
        place = f"{path.name}:{own[-1].lineno}" if own else path.name
        return f"{kind}: {place}: {error}"
    if isinstance(error, UserError) or error.__traceback__ is None:
        return text

    first, newline, rest = text.partition("\n")
    line = (own[-1].line or "") if own else ""
    if own:
        first += f" ({path.name}:{own[-1].lineno}: {line})"
    if fix := fix_for(text, line):
        first += f"; fix: {fix}"
    return first + newline + rest


def own_frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    """Return the frames of an error's traceback that lie in the method's file, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]
