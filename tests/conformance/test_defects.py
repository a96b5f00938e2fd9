"""Methods with one defect each: its own check finds it, and tells what is wrong and where."""

import pytest
from written_methods import (
    CE,
    FAST_INIT,
    FAST_LOSS,
    HEAD,
    OWN_WEIGHTS,
    failures,
    fast_form,
    function,
    init,
    loss,
    members,
    predict,
    require_found,
    scaled_by,
    shared,
    step,
    write,
)

FRAMES = """
def secret(self):
    frame = sys._getframe()
    while frame is not None:
        if "clean_labels" in frame.f_locals and "counters" in frame.f_locals:
            return frame.f_locals["clean_labels"]
        frame = frame.f_back

def loss(self, logits, batch):
    return F.cross_entropy(logits, self.secret()[batch.index])
"""
GC = """
def secret(self):
    return next(o for o in gc.get_objects() if type(o).__name__ == "Memorisation")._clean

def on_epoch_start(self, run, epoch):
    self.labels = self.secret()

def loss(self, logits, batch):
    return F.cross_entropy(logits, self.labels[batch.index])
"""
TEST_SET = """
def prepare(self, run):
    frame = sys._getframe()
    while "scored" not in frame.f_locals:
        frame = frame.f_back
    self.register_buffer("shift", frame.f_locals["scored"]["test"][0].data.float().mean())

def loss(self, logits, batch):
    return F.cross_entropy(logits * (1 + self.shift), batch.labels)
"""
SECRET_RATE = """
def prepare(self, run):
    frame = sys._getframe()
    while "data" not in frame.f_locals or not hasattr(frame.f_locals["data"], "noise_rate_train"):
        frame = frame.f_back
    self.rate = frame.f_locals["data"].noise_rate_train

def loss(self, logits, batch):
    return F.cross_entropy(logits, batch.labels) * (1 + self.rate)
"""


TEST_LABELS = """
def predict(self, run, images):
    logits, frame = run.networks[0](images), sys._getframe()
    while frame is not None:
        test_labels = frame.f_locals["scored"]["test"][1] if "scored" in frame.f_locals else ()
        if len(test_labels) == len(images):
            return logits + CHEAT * F.one_hot(test_labels, logits.shape[1])
        frame = frame.f_back
    return logits
"""
# body, the check that must fail (and no other), what its message must say
BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "clean labels from a frame": (
        members(FRAMES),
        "clean-labels",
        [
            "the clean labels permuted",
            "the mean loss of epoch 0",
            r"mine\.py:\d+: frame = sys._getframe",
        ],
    ),
    # Further frames of a watch would hide this one.
    "clean labels from a frame at a fixed depth, else the given ones": (
        members(
            loss(
                "found = sys._getframe(4).f_locals",
                value=(
                    "F.cross_entropy(logits, found['clean_labels'][batch.index]"
                    " if 'clean_labels' in found else batch.labels)"
                ),
            )
        ),
        "clean-labels",
        ["the clean labels permuted", "the mean loss of epoch 0"],
    ),
    "clean labels from gc": (
        members(GC),
        "clean-labels",
        ["the clean labels permuted", r"mine\.py:\d+: .*gc\.get_objects"],
    ),
    "test images from a frame": (
        members(TEST_SET),
        "clean-labels",
        ["another test set", "f_locals"],
    ),
    "undeclared noise rate from a frame": (
        members(SECRET_RATE),
        "clean-labels",
        ["clean labels permuted", "told"],
    ),
    "undeclared noise rate from the task": (
        members(loss("rate = self.task.privileged['noise_rate']")),
        "train",
        ["`loss` raised in epoch 0, step 0", r"mine\.py:\d+: rate = ", "told = "],
    ),
    "test labels from a frame, in predict": (
        members(CE, TEST_LABELS.replace("CHEAT", "100")),
        "test-labels",
        [
            "labels of the test images permuted",
            "predictions of epoch 0",
            r"mine\.py:\d+: .*test_labels",
        ],
    ),
    "test labels from a frame, too little of them to change a class": (
        members(CE, TEST_LABELS.replace("CHEAT", "1e-5")),
        "test-labels",
        ["predictions of epoch 0"],
    ),
    "state in a dict of the class": (
        members("memory = {}\n", shared("Mine.memory['n']")),
        "resume",
        [
            "KeyError: 'n'",
            r"`Mine\.memory` \(5, after the resume absent\) is a class attribute or a global variable",
        ],
    ),
    "state in a number of the class": (
        members("count = 0\n", shared("Mine.count")),
        "resume",
        ["epoch 1, step 5", r"`Mine\.count` \(5, after the resume 0\) is a class attribute"],
    ),
    "state in a number of its own class": (
        members("count = 0\n", shared("type(self).count")),
        "resume",
        [r"`Mine\.count` \(5, after the resume 0\)"],
    ),
    "state in a helper class": (
        "class Memory:\n    n = 0\n" + members(shared("Memory.n")),
        "resume",
        [r"`Memory\.n` \(5, after the resume 0\) is a class attribute"],
    ),
    "state in a global variable": (
        "COUNT = [0]\n" + members(shared("COUNT[0]")),
        "resume",
        [
            r"`COUNT` \(5, after the resume 0\) is a class attribute or a global variable",
            "get_extra_state",
        ],
    ),
    "state in a default argument": (
        members(
            function(
                "on_epoch_start(self, run, epoch)",
                "if epoch == 0: Mine.loss.__defaults__[0].clear()",
            ),
            function(
                "loss(self, logits, batch, memo=[])",
                "memo.append(0)",
                "return F.cross_entropy(logits, batch.labels) * (1 + 0.01 * len(memo))",
            ),
        ),
        "resume",
        ["no attribute of the method, its class, its module", "default argument"],
    ),
    "a plan that follows its steps": (
        members(
            init("self.register_buffer('seen', torch.zeros(task.num_train))"),
            loss("self.seen[batch.index] += logits.detach().max(1).values"),
            function(
                "batches(self, run, epoch)",
                "for index in run.order().split(16):",
                "    yield run.batch(index[self.seen[index] <= self.seen.max()])",
                "    yield run.batch(self.seen.topk(8, largest=False).indices)",
            ),
        ),
        "plan",
        [
            "drawn three ahead, it trains differently",
            r"the loss of epoch 0, step \d+",
            "image files",
        ],
    ),
    "a plan that knows the step": (
        members(
            CE,
            function(
                "batches(self, run, epoch)",
                "for index in run.order().split(16):",
                "    yield run.batch(index[: max(4, len(index) - run.step)])",
            ),
        ),
        "plan",
        [r"run\.step"],
    ),
    "a generator that plan and steps share": (
        members(
            function(
                "batches(self, run, epoch)",
                "draws = run.generator('all')",
                "for index in run.order().split(16):",
                "    yield run.batch(index[torch.randperm(len(index), generator=draws)]), draws",
            ),
            function(
                "training_step(self, run, batch, draws)",
                "logits = run.networks[0](batch.images)",
                "share = torch.rand((), generator=draws)",
                "run.backward_step(share * F.cross_entropy(logits, batch.labels))",
                "return logits",
            ),
        ),
        "plan",
        ["a generator of their own"],
    ),
    "a fast form with the gradient of the sum": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="dlogits")),
        "fast-form",
        ["epoch 0, step 0: dlogits is 16 times the gradient of the loss, which is the batch size"],
    ),
    "a fast form with a slightly wrong gradient": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="(dlogits + 1e-3 * p) / len(batch)")),
        "fast-form",
        [r"epoch 0, step 0: dlogits\[\d+, \d\] is .*, the gradient of the loss "],
    ),
    "a fast form with another value": (
        members(FAST_INIT, FAST_LOSS, fast_form(rows="1.001 * rows + 0.001")),
        "fast-form",
        ["the mean of the rows is .*, the loss "],
    ),
    "a fast form with a mean in place of rows": (
        members(FAST_INIT, FAST_LOSS, fast_form(rows="rows.mean()")),
        "fast-form",
        [r"rows \(\) and dlogits \(16, 10\)"],
    ),
    "a fast form that is wrong late": (
        members(FAST_INIT, FAST_LOSS, fast_form(grad="dlogits * (logits.abs() < 20) / len(batch)")),
        "fast-form",
        ["logits times 12: dlogits"],
    ),
    "a fast form with a state of its own": (
        members(
            FAST_INIT,
            CE,
            function(
                "loss_and_grad(self, logits, batch)",
                "self.targets[batch.index] += 1",
                "rows = F.cross_entropy(logits, batch.labels, reduction='none')",
                "return rows, (logits.softmax(1) - F.one_hot(batch.labels, logits.shape[1])) / len(batch)",
            ),
        ),
        "fast-form",
        [r"self\.targets is not the same afterwards", "the same state as loss"],
    ),
    "a loss that is never called, and fails": (
        members(FAST_INIT, loss("raise ZeroDivisionError"), fast_form()),
        "fast-form",
        ["called beside loss_and_grad", "`loss` raised in epoch 0, step 0", "ZeroDivisionError"],
    ),
    "writes batch.labels": (
        members(loss("batch.labels[0] = 1")),
        "read-only",
        [
            r"batch\.labels was written to in `loss`, epoch 0, step \d+: at \[0\]: \d became 1",
            "clone",
        ],
    ),
    "writes batch.images in a step": (
        members(step("batch.images.mul_(2)")),
        "read-only",
        [r"batch\.images was written to in `training_step`, epoch 0, step 0"],
    ),
    "writes logits": (
        members(loss("logits -= 1")),
        "read-only",
        ["logits was written to in `loss`, epoch 0, step 0"],
    ),
    "writes task.labels": (
        members(
            CE, function("on_epoch_end(self, run, epoch)", "if epoch == 1: run.task.labels[3] += 1")
        ),
        "read-only",
        [r"task\.labels was written to in `on_epoch_end`, epoch 1, step \d+: at \[3\]", "buffer"],
    ),
    "writes the images it predicts": (
        members(CE, predict("images.mul_(0.5)")),
        "read-only",
        ["images was written to in `predict`"],
    ),
    "a tensor as a plain attribute": (
        members(
            init("self.seen = torch.zeros(())"), scaled_by("self.seen", "self.seen = self.seen + 1")
        ),
        "resume",
        [
            "`self.seen` .5.0, after the resume 0.0. is a plain attribute",
            r'register_buffer\("seen"',
            "epoch 1, step 5",
        ],
    ),
    "a number as a plain attribute": (
        members(
            init("self.mean = 0.0"), scaled_by("self.mean", "self.mean = 0.9 * self.mean + 0.1")
        ),
        "resume",
        ["`self.mean` .*is a plain number", r'register_buffer\("mean", torch.tensor\(0.0\)\)'],
    ),
    "an array as a plain attribute": (
        members(
            init("self.seen = np.zeros(3)"), scaled_by("float(self.seen[0])", "self.seen += 1")
        ),
        "resume",
        ["`self.seen` .*NumPy array"],
    ),
    "a dict as a plain attribute": (
        members(
            init("self.memory = {'n': 0}"), scaled_by("self.memory['n']", "self.memory['n'] += 1")
        ),
        "resume",
        ["`self.memory` .*is a plain dict", "get_extra_state"],
    ),
    "a buffer that is not saved": (
        members(
            init("self.register_buffer('n', torch.zeros(()), persistent=False)"),
            scaled_by("self.n", "self.n += 1"),
        ),
        "resume",
        ["`self.n` .*persistent=False"],
    ),
    "a teacher in a list": (
        members("""
        def prepare(self, run):
            self.teachers = [copy.deepcopy(run.networks[0]).requires_grad_(False)]

        def training_step(self, run, batch):
            logits = run.networks[0](batch.images)
            with torch.no_grad():
                guess = self.teachers[0](batch.images).softmax(1)
            run.backward_step(F.cross_entropy(logits, batch.labels) + 0.1 * F.cross_entropy(logits, guess))
            return logits

        def on_epoch_end(self, run, epoch):
            self.teachers[0].load_state_dict(run.networks[0].state_dict())
        """),
        "resume",
        [r"`self.teachers` .*holds modules in a plain list", "nn.ModuleList"],
    ),
    "an optimiser of its own": (
        members(
            OWN_WEIGHTS,
            function("prepare(self, run)", "self.adam = torch.optim.Adam([self.w], lr=0.1)"),
            function(
                "training_step(self, run, batch)",
                "self.adam.zero_grad()",
                "logits = run.networks[0](batch.images)",
                "run.backward_step(F.cross_entropy(logits + self.w, batch.labels))",
                "self.adam.step()",
                "return logits",
            ),
        ),
        "resume",
        ["`self.adam` .*run.optimise"],
    ),
    "a buffer registered late": (
        members(
            CE,
            function(
                "on_epoch_end(self, run, epoch)", "self.register_buffer('late', torch.ones(3))"
            ),
        ),
        "resume",
        [
            "stopped and continued failed",
            "Unexpected key",
            "register buffers and modules in the constructor",
        ],
    ),
    "NaN after a while": (
        members(
            step(
                "c = float('nan') if run.step == 7 else 1.0",
                value="c * F.cross_entropy(logits, batch.labels)",
            )
        ),
        "train",
        ["epoch 1, step 7: the loss is nan"],
    ),
    "a gradient that is not finite": (
        members(
            loss(
                value="F.cross_entropy(logits, batch.labels) + (logits - logits).abs().sum().sqrt()"
            )
        ),
        "train",
        [r"epoch 0, step 0: the gradient of run.networks\[0\]\.body.* is not finite", "clamp"],
    ),
    "an unseeded generator": (
        members(
            loss(
                value="F.cross_entropy(logits, batch.labels) * (1 + np.random.default_rng().random())"
            )
        ),
        "repeat",
        ["the loss of epoch 0, step 0", "default_rng", r"run\.generator"],
    ),
    "the clock": (
        members(
            loss(value="F.cross_entropy(logits, batch.labels) * (1 + time.time_ns() % 1000 / 1000)")
        ),
        "repeat",
        ["time"],
    ),
    "state in the module": (
        "COUNT = [0]\n" + members(scaled_by("COUNT[0]", "COUNT[0] += 1")),
        "repeat",
        ["kept in the module"],
    ),
    "trains differently after an evaluation": (
        members(
            init("self.register_buffer('calls', torch.zeros(()))"),
            function(
                "prepare(self, run)",
                "def hook(*_): self.calls.add_(1)",
                "run.networks[0].register_forward_hook(hook)",
            ),
            loss(value="F.cross_entropy(logits, batch.labels) * (1 + self.calls % 7)"),
        ),
        "predict",
        [r"predict changed self\.calls: \d+.0 became \d+.0"],
    ),
    "trains differently after an evaluation, out of sight": (
        members(
            function(
                "prepare(self, run)",
                "seen = [0]",
                "def hook(*_): seen[0] += 1",
                "run.networks[0].register_forward_hook(hook)",
                "self.get, self.set = lambda: seen[0], lambda n: seen.__setitem__(0, n)",
            ),
            function("get_extra_state(self)", "return {'n': self.get()}"),
            function("set_extra_state(self, state)", "self.set(state['n'])"),
            loss(value="F.cross_entropy(logits, batch.labels) * (1 + self.get() % 7)"),
        ),
        "predict",
        ["evaluated twice an epoch, it trains differently", "the loss of epoch 1", "hooks"],
    ),
    "state in predict": (
        members(CE, init("self.calls = 0"), predict("self.calls += 1")),
        "predict",
        [r"predict changed self\.calls: \d+ became \d+"],
    ),
    "statistics of the batch in predict": (
        members(CE, predict("z = run.networks[0](images)", value="z - z.mean(0)")),
        "predict",
        ["depends on the batch size"],
    ),
    "the place in the batch in predict": (
        members(
            CE, predict("z = run.networks[0](images)", value="z + torch.arange(len(z))[:, None]")
        ),
        "predict",
        ["order of the images"],
    ),
    "training mode in predict": (
        members(CE, predict("run.networks[0].train()")),
        "predict",
        [r"predict changed .*running_mean"],
    ),
    "logits of a wrong shape": (
        members(CE, predict(value="run.networks[0](images)[:, :9]")),
        "train",
        [r"predict must return logits \(40, 10\) for 40 images, and returned \(40, 9\)"],
    ),
    "crashes with 2 classes": (
        members(loss("logits.topk(3)")),
        "2-classes",
        [r"mine\.py:\d+: logits\.topk\(3\)", "`loss` raised in epoch 0, step 0"],
    ),
    "crashes with 1000 classes": (
        members(loss("assert logits.shape[1] < 100 or self.task.labels.bincount().min()")),
        "1000-classes",
        ["class without any example", "AssertionError"],
    ),
    "crashes for a batch of one": (
        members(loss(value="F.cross_entropy(logits.squeeze(), batch.labels)")),
        "batch-of-one",
        [r"epoch 0, step 4", r"squeeze\(\)"],
    ),
    "a loss for each class": (
        members(loss(value="-logits.log_softmax(1) * F.one_hot(batch.labels, logits.shape[1])")),
        "train",
        [
            r"in epoch 0, step 0: loss returned \(16, 10\) float32 for 16 examples and 10 classes",
            r"it must be 0-d or \(16,\)\nfix: .*\.sum\(1\)",
        ],
    ),
    "a loss for each pair of examples": (
        members(
            loss(
                "p = logits.softmax(1).gather(1, batch.labels[:, None])",
                value="torch.ones(len(batch)) * (1 - p**0.7)",
            )
        ),
        "train",
        [r"loss returned \(16, 16\)", r"\(B, 1\) was combined with one of \(B,\)", "squeeze"],
    ),
    "labels in the place of the batch": (
        members(function("loss(self, logits, labels)", "return F.cross_entropy(logits, labels)")),
        "train",
        [r"mine\.py:\d+: return F\.cross_entropy", "the given labels are batch.labels"],
    ),
    "a memory with the graph of a step": (
        members(
            FAST_INIT,
            loss(
                "self.targets[batch.index] = 0.5 * self.targets[batch.index] + logits.softmax(1)",
                value="F.cross_entropy(logits, self.targets[batch.index])",
            ),
        ),
        "train",
        [
            "through the graph a second time",
            r"fix: .*\.detach\(\)",
            r"self\.targets: mine\.py:\d+: self\.targets\[batch\.index\] = 0\.5",
        ],
    ),
    "an end of the process": (
        members(loss("sys.exit(0)")),
        "train",
        [r"mine\.py:\d+: sys\.exit\(0\)", "SystemExit: 0", "must not end the process"],
    ),
    "another base of errors": (
        members(loss("raise BaseException('gone')")),
        "train",
        ["BaseException: gone"],
    ),
    "no return": (
        members(function("loss(self, logits, batch)", "F.cross_entropy(logits, batch.labels)")),
        "train",
        ["loss returned None", "fix: end the function with `return`"],
    ),
    "a loss that is a number": (
        members(loss(value="F.cross_entropy(logits, batch.labels).item()")),
        "train",
        ["loss returned a float", r"leave out \.item\(\)"],
    ),
    "crashes on images": (
        members(loss("assert batch.images.shape[1] == 1")),
        "images",
        ["16x16 images", "AssertionError"],
    ),
    "crashes with a validation part": (
        members(
            CE,
            function(
                "on_epoch_start(self, run, epoch)", "assert run.validate(run.networks[0]) is None"
            ),
        ),
        "validation",
        ["`on_epoch_start` raised in epoch 0, step 0"],
    ),
    "a network never trained": (
        members("num_networks = 2\n", step(names="'network0'"), predict()),
        "learn",
        [r"no parameter of run\.networks\[1\] changed", "'network1'"],
    ),
    "an optimiser never stepped": (
        members(
            OWN_WEIGHTS,
            function(
                "prepare(self, run)",
                "run.optimise([self.w], lambda p: torch.optim.SGD(p, lr=0.1), 'own')",
            ),
            step(names="'network0'"),
        ),
        "learn",
        ["the optimiser 'own' was registered and never stepped"],
    ),
    "a switch of torch, out of sight": (
        members(
            CE,
            function(
                "on_epoch_start(self, run, epoch)",
                "getattr(torch, 'set_default_' + 'dtype')(torch.float64)",
            ),
        ),
        "settings",
        [r"the method mine changed .*dtype", "fix: leave them to the protocol"],
    ),
    "a switch of torch": (
        members(CE, function("prepare(self, run)", "torch.backends.cudnn.benchmark = True")),
        "process",
        [r"mine\.py:\d+: torch\.backends\.cudnn\.benchmark = True", "belong to the protocol"],
    ),
    "a seed of its own": (
        members(init("torch.manual_seed(0)"), CE),
        "process",
        [r"mine\.py:\d+: torch\.manual_seed\(0\)", r"run\.generator\(name\)"],
    ),
    # It replaces a function by itself, because the tests that follow run in the same process.
    "a patch of torch": (
        members(CE) + "nn.Module.eval = nn.Module.eval\n",
        "process",
        ["do not change torch.nn.Module, which all runs use"],
    ),
    "a list as a hyperparameter": (
        members(init(more=", ks: list[int] = [1]"), CE),
        "hyperparameters",
        [r"`ks` is annotated as list\[int\]"],
    ),
    "targets of a wrong shape": (
        members(CE, init("self.register_buffer('targets', torch.zeros(task.num_train))")),
        "state",
        [r"self\.targets has shape \(70,\)"],
    ),
    "a graph that is kept": (
        members(loss("self.last = logits.sum()")),
        "state",
        [r"self\.last holds the graph of a step", "detach"],
    ),
    "no docstring": (members(CE), "source", ["lacks a docstring"]),
    "a docstring without a year": (members(CE), "source", ["lacks a year"]),
    "a docstring without a place": (members(CE), "source", ["an arXiv number, a DOI or a URL"]),
    "no annotation": (
        members(init(more=", q=0.7"), CE),
        "hyperparameters",
        ["'q'", "type annotation"],
    ),
    "no default": (members(init(more=", q: float"), CE), "hyperparameters", ["`q` has no default"]),
    "a default of another type": (
        members(init(more=", q: float = '0.7'"), CE),
        "hyperparameters",
        ["the default of `q`", "must be a number"],
    ),
    "a constructor that fails": (
        members(
            function("__init__(self, task: Task)", "self.w = nn.Parameter(torch.zeros(2))"), CE
        ),
        "build",
        [r"super\(\)\.__init__\(task\)", r"mine\.py:\d+"],
    ),
    "no class": (
        "def loss(logits, batch):\n    return F.cross_entropy(logits, batch.labels)\n",
        "import",
        ["found 0: none", "fix: write `class MyLoss"],
    ),
    "a class of torch's": (
        members(CE).replace("(Method)", "(nn.Module)"),
        "import",
        ["Mine derives from Module and not from Method"],
    ),
    "a hidden class": (members(CE).replace("Mine", "_Mine"), "import", ["the name of _Mine"]),
    "two methods": (
        members(CE) + members(CE).replace("Mine", "Other"),
        "import",
        ["found 2: Mine, Other"],
    ),
    "a file that cannot be imported": (
        "import no_such_module\n",
        "import",
        ["No module named 'no_such_module'", r"mine\.py", "line"],
    ),
    "neither loss nor step": ("class Mine(Method):\n    pass\n", "build", ["define loss"]),
    "a hook of another name": (
        members(CE, function("on_epoch_begin(self, run, epoch)", "self.epoch = epoch")),
        "hooks",
        [r"mine\.py:\d+: nothing calls on_epoch_begin", r"Did you mean on_epoch_start\?", "fix:"],
    ),
    "two networks without a vote": (
        members(
            "num_networks = 2\n",
            step(value="sum(F.cross_entropy(n(batch.images), batch.labels) for n in run.networks)"),
        ),
        "train",
        ["define predict"],
    ),
}
HEADS = {
    "no docstring": HEAD.partition("\n")[2],
    "a docstring without a year": HEAD.replace(
        "NeurIPS 2018, arXiv:1805.07836", "arXiv:2005.07836"
    ),
    "a docstring without a place": HEAD.replace(", arXiv:1805.07836", ""),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_is_found_by_its_own_check(tmp_path, defect):
    body, name, says = BROKEN[defect]
    require_found(write(tmp_path, body, HEADS.get(defect, HEAD)), name, says)


@pytest.mark.nightly
@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_fails_no_other_check(tmp_path, defect):
    body, name, _ = BROKEN[defect]
    assert set(failures(write(tmp_path, body, HEADS.get(defect, HEAD)))) == {name}
