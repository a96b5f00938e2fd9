"""Defects of losses, parameters, memories and devices: each is found by its own check."""

import pytest
from written_methods import (
    CE,
    FAST_INIT,
    OWN_WEIGHTS,
    complaints,
    failures,
    function,
    init,
    loss,
    members,
    predict,
    require_found,
    step,
    write,
)

from nlbench.conformance import runner

NAIVE = "F.nll_loss(logits.softmax(1).log(), batch.labels)"
MEMORY = init("self.register_buffer('m', torch.zeros(task.num_train))")

# body, the check that must fail (and no other), what its message must say
BROKEN = {
    "a sum": (
        members(loss(value="F.cross_entropy(logits, batch.labels, reduction='sum')")),
        "scale",
        ["1.00 times as large in a batch of 32", "leave out reduction"],
    ),
    "a sum of a loss of its own": (
        members(loss(value="(1 - logits.softmax(1).gather(1, batch.labels[:, None])).sum()")),
        "scale",
        ["times as large in a batch of 32"],
    ),
    "a sum in a step of its own": (
        members(step(value="F.cross_entropy(logits, batch.labels, reduction='none').sum()")),
        "scale",
        ["times as large in a batch of 32"],
    ),
    "a logarithm of a softmax": (
        members(loss(value=NAIVE)),
        "extremes",
        [
            "one logit is 120 and the others are -120, epoch 0, step 0: the loss is inf",
            "log_softmax",
        ],
    ),
    "a root that is steep at 0": (
        members(
            loss(
                "norm = logits.square().sum(1).sqrt().mean()",
                value="F.cross_entropy(logits, batch.labels) + 0.1 * norm",
            )
        ),
        "extremes",
        ["all logits are 0, epoch 0, step 0: the gradient of .* is not finite", "clamp before"],
    ),
    "an entropy of probabilities": (
        members(
            loss(
                "p = logits.softmax(1)",
                value="F.cross_entropy(logits, batch.labels) + 0.1 * (p * p.log()).sum(1).mean()",
            )
        ),
        "extremes",
        ["the others are -120, epoch 0, step 0: the loss is nan"],
    ),
    "probabilities given to cross entropy": (
        members(loss(value="F.cross_entropy(logits.softmax(1), batch.labels)")),
        "softmax",
        ["1.4612, and 2.4612 for wrong ones", "give it the logits"],
    ),
    "logits given to nll_loss": (
        members(loss(value="F.nll_loss(logits.clamp(-121, 121), batch.labels)")),
        "softmax",
        ["-120, and 120 for wrong ones", r"log_softmax\(logits\)"],
    ),
    "a parameter without an optimiser": (
        members(OWN_WEIGHTS, loss(value="F.cross_entropy(logits + self.w, batch.labels)")),
        "parameters",
        ["self.w: gets a gradient, and no registered optimiser", r"run\.optimise\(\[self\.w\]"],
    ),
    "a layer without an optimiser": (
        members(
            init("self.head = nn.Linear(task.num_classes, task.num_classes)"),
            loss(value="F.cross_entropy(self.head(logits), batch.labels)"),
        ),
        "parameters",
        ["self.head.weight, self.head.bias"],
    ),
    "a network that is left in evaluation mode": (
        members(
            CE,
            function("on_epoch_start(self, run, epoch)", "if epoch: run.networks[0].eval()"),
        ),
        "modes",
        [r"in epoch 1, run\.networks\[0\] was trained in evaluation mode", r"\.train\(\) after"],
    ),
    "a memory by the place in the batch": (
        members(MEMORY, loss("self.m[: len(batch)] = logits.detach().max(1).values")),
        "memory",
        [r"self\.m has a row for each training example", r"self\.m\[batch\.index\]"],
    ),
    "a memory by the number of the step": (
        members(
            MEMORY,
            step("at = 16 * (run.step % 5)", "self.m[at : at + len(batch)] = run.epoch + 1.0"),
        ),
        "memory",
        ["rows of other examples than its own"],
    ),
    "a mean of (B, 1) with (B,)": (
        members(
            loss(
                "given = logits.gather(1, batch.labels[:, None])",
                "others = logits.scatter(1, batch.labels[:, None], float('-inf')).logsumexp(1)",
                value="F.softplus(1 - (given - others)).mean()",
            )
        ),
        "pairs",
        [r"change the gradient of example \d", r"\.squeeze\(1\)", "couples_examples = True"],
    ),
    "a fast form with labels of other rows": (
        members(
            function(
                "loss_and_grad(self, logits, batch)",
                "d = logits.softmax(1) - F.one_hot(batch.labels.flip(0), logits.shape[1])",
                "return F.cross_entropy(logits, batch.labels, reduction='none'), d / len(d)",
            )
        ),
        "pairs",
        ["change the gradient of example"],
    ),
    "an optimiser that is not registered": (
        members(
            init("self.w = torch.nn.Parameter(torch.ones(task.num_classes))"),
            function("prepare(self, run)", "self.opt = torch.optim.SGD([self.w], lr=0.1)"),
            loss(value="F.cross_entropy(logits * self.w, batch.labels)"),
            function(
                "training_step(self, run, batch)",
                "self.opt.zero_grad()",
                "logits = run.networks[0](batch.images)",
                "run.backward_step(self.loss(logits, batch))",
                "self.opt.step()",
                "return logits",
            ),
        ),
        "parameters",
        [r"self\.w: is trained by an optimiser \(SGD\)", r"run\.optimise\(\[self\.w\]"],
    ),
    "a loss of the wrong sign": (
        members(loss(value="-F.cross_entropy(10 * logits, batch.labels)")),
        "train",
        ["negative and falls", "is its sign right"],
    ),
    "a tensor that stays on the CPU": (
        members(
            init("self.w = torch.ones(task.num_classes)"),
            loss(value="F.cross_entropy(logits, batch.labels, weight=self.w)"),
        ),
        "device",
        [r"mine\.py:\d+: return F\.cross_entropy", r'register_buffer\("w"'],
    ),
    "a tensor in a list": (
        members(
            init("self.w = [torch.ones(task.num_classes)]"),
            loss(value="F.cross_entropy(logits * self.w[0], batch.labels)"),
        ),
        "device",
        ["a tensor was made on the CPU"],
    ),
    "a tensor that a step makes": (
        members(
            loss(
                "eye = torch.eye(logits.shape[1])",
                value="F.cross_entropy(logits, eye[batch.labels])",
            )
        ),
        "device",
        [r"eye\[batch\.labels\]", r"device=logits\.device"],
    ),
    "a buffer that prepare makes": (
        members(
            function("prepare(self, run)", "self.register_buffer('w', torch.ones(10))"),
            loss(
                value="F.cross_entropy(logits[:, :10], batch.labels, weight=self.w[: logits.shape[1]])"
            ),
        ),
        "device",
        ["was made on the CPU"],
    ),
    "a tensor of the module": (
        "SHIFT = torch.zeros(1)\n"
        + members(loss(value="F.cross_entropy(logits + SHIFT, batch.labels)")),
        "device",
        ["a tensor was made on the CPU"],
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_is_found_by_its_own_check(tmp_path, defect):
    body, name, says = BROKEN[defect]
    require_found(write(tmp_path, body), name, says)


@pytest.mark.nightly
@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_fails_no_other_check(tmp_path, defect):
    body, name, _ = BROKEN[defect]
    assert set(failures(write(tmp_path, body))) == {name}


NEW = ["scale", "pairs", "extremes", "softmax", "parameters", "modes", "memory", "device"]

# Correct methods that look like those above.
LEGITIMATE = {
    "a sum over the protocol's batch size": members(
        loss(value="F.cross_entropy(logits, batch.labels, reduction='sum') / self.task.batch_size")
    ),
    "batches of its own size": members(
        CE,
        function("batches(self, run, epoch)", "for i in run.order().split(16): yield run.batch(i)"),
        step(),
    ),
    "a weight of sixteen": members(loss(value="16 * F.cross_entropy(logits, batch.labels)")),
    "a frozen teacher, trained without gradients": members(
        function("prepare(self, run)", "self.teacher = copy.deepcopy(run.networks[0])"),
        function(
            "training_step(self, run, batch)",
            "logits = run.networks[0](batch.images)",
            "with torch.no_grad(): guess = self.teacher(batch.images).softmax(1)",
            "run.backward_step(F.cross_entropy(logits, batch.labels) + F.cross_entropy(logits, guess))",
            "return logits",
        ),
    ),
    "a network that looks at its inputs in evaluation mode": members(
        function(
            "training_step(self, run, batch)",
            "network = run.networks[0]",
            "x = batch.images.clone().requires_grad_()",
            "network.eval()",
            "g = torch.autograd.grad(F.cross_entropy(network(x), batch.labels), x)[0]",
            "network.train()",
            "logits = network(batch.images + 0.01 * g.sign())",
            "run.backward_step(F.cross_entropy(logits, batch.labels))",
            "return logits",
        ),
    ),
    "a memory that decays, and one of classes": members(
        init(
            "self.register_buffer('m', torch.zeros(task.num_train))",
            "self.register_buffer('c', torch.zeros(task.num_classes))",
        ),
        loss(
            "self.m *= 0.9",
            "self.m[batch.index] += F.cross_entropy(logits, batch.labels, reduction='none').detach()",
            "self.c[batch.labels] += 1",
        ),
    ),
    "tensors that are moved": members(
        init(
            "self.w = torch.ones(task.num_classes, device=task.device)",
            "self.counts = task.labels.bincount(minlength=task.num_classes)",
            "self.t = torch.tensor(2.0)",
            "self.table = torch.linspace(1, 2, 50)",
        ),
        function(
            "on_epoch_start(self, run, epoch)",
            "order = torch.randperm(len(run.task.labels), generator=run.generator('o'))",
            "self.first = run.task.labels[order]",
            "self.scale = float(self.table[epoch])",
        ),
        loss(
            "one = torch.eye(logits.shape[1]).to(logits.device)[batch.labels]",
            "rows = torch.arange(len(logits))",
            "picked = logits[rows, batch.labels] * self.t",
            "on_cpu = torch.from_numpy(logits.detach().cpu().numpy()) + torch.ones(1)",
            value="F.cross_entropy(logits * self.w * self.scale, one) + 0 * picked.mean()",
        ),
    ),
    "a second network's vote": members(
        "num_networks = 2\n",
        step(value="sum(F.cross_entropy(n(batch.images), batch.labels) for n in run.networks)"),
        predict(value="run.networks[0](images) + run.networks[1](images)"),
    ),
    "a selection in the batch that it declares": members(
        "couples_examples = True\n",
        loss(
            "rows = F.cross_entropy(logits, batch.labels, reduction='none')",
            value="(rows * (rows < rows.mean())).mean() + rows.mean()",
        ),
    ),
    "a negative loss": members(
        loss(value="-logits.softmax(1).gather(1, batch.labels[:, None]).mean()")
    ),
    "a fast memory": members(FAST_INIT, loss("self.targets[batch.index] = logits.detach()")),
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_legitimate_code_passes(tmp_path, kind):
    assert not complaints(runner.check(write(tmp_path, LEGITIMATE[kind]), only=NEW))


def test_a_memory_that_a_resume_loses_is_remarked_on(tmp_path):
    """Nothing depends on it in a short training, so no number shows it."""
    late = members(
        init("self.m, self.log = np.zeros(task.num_train), []"),
        loss("self.m[batch.index.numpy()] += 1", "self.log.append(0)"),
    )
    results = runner.check(write(tmp_path, late), only=["resume"])
    (said,) = [result.message for result in results if result.name == "resume"]
    assert said.startswith("self.m is in no checkpoint, and a resume begins it anew")
    assert not complaints(results)

    made_anew = late.replace(
        "def loss", "def on_epoch_start(self, run, epoch):\n        self.m[:] = 0\n    def loss"
    )
    results = runner.check(write(tmp_path, made_anew, name="anew"), only=["resume"])
    assert [result.message for result in results if result.name == "resume"] == [""]
