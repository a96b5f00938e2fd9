"""Correct methods that look like defective ones: they pass the checks."""

import pytest
from written_methods import (
    FAST_INIT,
    FAST_LOSS,
    OWN_WEIGHTS,
    complaints,
    fast_form,
    function,
    init,
    loss,
    members,
    predict,
    step,
    write,
)

from nlbench.conformance import runner

# A correct method that uses each part of the interface.
EVERYTHING = """
class Everything(Method):
    num_networks = 2
    told = ("noise_rate", "T")

    def __init__(self, task: Task, lr_shift: float = 0.5, momentum: float = 0.9):
        super().__init__(task)
        self.lr_shift, self.momentum, self.rate = lr_shift, momentum, task.noise_rate
        self.shift = nn.Parameter(torch.zeros(task.num_train, task.num_classes))
        self.register_buffer("targets", torch.zeros(task.num_train, task.num_classes))
        self.register_buffer("weights", torch.ones(task.num_train))
        self.register_buffer("T", task.T.clone())
        self.seen, self.cache = 0, {}

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]

    def prepare(self, run):
        self.teacher = copy.deepcopy(run.networks[0]).requires_grad_(False)
        run.optimise([self.shift], lambda p: torch.optim.SGD(p, lr=self.lr_shift), "shift", lambda at: 1.0)
        run.optimise(run.networks[1].parameters(), lambda p: torch.optim.Adam(p, lr=1e-3), "network1")
        helper = run.fit("warm-up", "ce", 1)
        self.targets.copy_(run.predict_train(helper).softmax(1))

    def on_epoch_start(self, run, epoch):
        losses = F.cross_entropy(run.predict_train(run.networks[0]), run.task.labels, reduction="none")
        self.cache["losses"] = losses  # made anew in every epoch
        self.weights.copy_(losses <= losses.quantile(1 - 0.5 * self.rate))
        accuracy = run.validate(run.networks[0])
        assert accuracy is None or 0 <= accuracy <= 1

    def batches(self, run, epoch):
        draw = torch.randperm(run.task.num_train, generator=run.generator("plan"))
        for index in draw.split(32):
            half = len(index) // 2
            if half:
                yield run.batch(index[:half]), run.batch(index[half:])

    def training_step(self, run, one, two):
        self.seen += len(one)
        logits = run.networks[0](one.images)
        rows = F.cross_entropy(logits + self.shift[one.index], one.labels, reduction="none")
        run.backward_step((self.weights[one.index] * rows).mean() * (1 + 1e-3 * self.seen), "network0", "shift")
        with torch.no_grad():
            guess = self.teacher(two.view(1)).softmax(1)
            self.targets[two.index] = 0.5 * self.targets[two.index] + 0.5 * guess
        draw = np.random.default_rng(int(torch.randint(2**31, (), generator=run.generator(f"draw{run.step}"))))
        scale = 1 + 0.01 * draw.random() + 0.01 * random.random()
        run.backward_step(scale * F.cross_entropy(run.networks[1](two.strong()), guess), "network1")
        return logits

    def on_epoch_end(self, run, epoch):
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), run.networks[0].parameters()):
                old.lerp_(new, 1 - self.momentum)

    def predict(self, run, images):
        return run.networks[0](images) + run.networks[1](images)
"""

AVERAGED = members(
    "num_networks = 2\n",
    function(
        "prepare(self, run)",
        "run.networks[1].load_state_dict(run.networks[0].state_dict())",
        "run.networks[1].requires_grad_(False)",
    ),
    step(names="'network0'"),
    function(
        "on_epoch_end(self, run, epoch)",
        "for old, new in zip(run.networks[1].parameters(), run.networks[0].parameters()): old.data.lerp_(new, 0.5)",
    ),
    predict(value="run.networks[1](images)"),
)
LATE = members(
    OWN_WEIGHTS,
    function(
        "prepare(self, run)", "run.optimise([self.w], lambda p: torch.optim.SGD(p, lr=0.1), 'own')"
    ),
    function(
        "training_step(self, run, batch)",
        "logits = run.networks[0](batch.images)",
        "names = ('network0', 'own') if run.epoch > 2 else ('network0',)",
        "run.backward_step(F.cross_entropy(logits + self.w, batch.labels), *names)",
        "return logits",
    ),
)
DRAWS_IN_PLAN = members(
    function(
        "batches(self, run, epoch)",
        "shares = np.random.default_rng(int(torch.randint(2**31, (), generator=run.generator('plan'))))",
        "draws = run.generator('steps')",
        "for index in run.order().split(16):",
        "    yield run.batch(index), shares.beta(4, 4), draws",
    ),
    function(
        "training_step(self, run, batch, share, draws)",
        "logits = run.networks[0](batch.images)",
        "run.backward_step((share + torch.rand((), generator=draws)) * F.cross_entropy(logits, batch.labels))",
        "return logits",
    ),
)
CONSTANTS = (
    (
        "TABLE, CACHE = torch.arange(1000.0) / 1000, {}\nclass Base(Method):\n    weights = [0.5, 1.5]\n"
        + members(
            loss(
                "CACHE[len(batch)] = TABLE[: len(batch)]",
                "shift = TABLE[: logits.shape[1]].to(logits.device)",
                value="F.cross_entropy(logits + shift, batch.labels) * self.weights[1]",
            )
        )
    )
    .replace("class Mine(Method)", "class Mine(Base)")
    .replace("Base", "_Base")
)
# body, and the checks that could take it for a defect
LEGITIMATE = {
    "every part of the interface": (EVERYTHING, ["learn", "read-only", "state", "plan", "resume"]),
    "a second network that is an average of the first": (AVERAGED, ["learn", "resume"]),
    "an optimiser that begins late": (LATE, ["learn"]),
    "draws of the plan's own, and of the steps' own": (DRAWS_IN_PLAN, ["plan", "resume"]),
    "constants and a cache in the module and in a class": (CONSTANTS, ["resume"]),
    "a fast form": (members(FAST_INIT, FAST_LOSS, fast_form()), ["fast-form"]),
    "a fast form with draws": (
        members(
            loss(value="torch.rand(()) * np.random.rand() * F.cross_entropy(logits, batch.labels)"),
            function(
                "loss_and_grad(self, logits, batch)",
                "scale = torch.rand(()) * np.random.rand()",
                "rows = scale * F.cross_entropy(logits, batch.labels, reduction='none')",
                "return rows, scale * (logits.softmax(1) - F.one_hot(batch.labels, logits.shape[1])) / len(batch)",
            ),
        ),
        ["fast-form"],
    ),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_legitimate_code_passes(tmp_path, kind):
    body, names = LEGITIMATE[kind]
    results = runner.check(write(tmp_path, body), only=names)
    assert not complaints(results)
    assert set(names) <= {result.name for result in results}
    assert {result.message for result in results if result.name == "train"} <= {""}


@pytest.mark.methods
@pytest.mark.parametrize("kind", LEGITIMATE)
def test_legitimate_code_passes_every_check(tmp_path, kind):
    assert not complaints(runner.check(write(tmp_path, LEGITIMATE[kind][0])))


def test_a_fast_form_without_a_loss_or_a_copy_is_not_compared(tmp_path):
    def skipped(*parts):
        path = write(tmp_path, members(*parts), name=f"m{len(list(tmp_path.iterdir()))}")
        results = runner.check(path, only=["fast-form"])
        assert [r.status for r in results].count("ok") == len(results) - 1
        return next(r.message for r in results if r.name == "fast-form")

    assert skipped(FAST_INIT, fast_form()) == "it has no loss to compare its loss_and_grad with"
    module = init(
        "self.register_buffer('targets', torch.zeros(task.num_train, task.num_classes))",
        "self.copy = copy",
    )
    assert "it cannot be copied (cannot pickle 'module' object)" in skipped(
        module, FAST_LOSS, fast_form()
    )
