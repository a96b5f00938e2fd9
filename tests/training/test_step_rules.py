"""A training of networks that goes past `run.backward_step` ends the run with its reason."""

import pytest
from sweeps import method_file, sweep

CE = "F.cross_entropy(run.networks[0](batch.images), batch.labels)"

# Bodies of a method, and what the message of its failed run must say.
PAST = {
    "an optimiser of its own": (
        f"""
        def prepare(self, run):
            self.opt = torch.optim.SGD(run.networks[0].parameters(), lr=0.1)

        def training_step(self, run, batch):
            loss = {CE}
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        """,
        "an optimiser that is not registered (SGD) trains run.networks[0]",
    ),
    "an optimiser of its own beside the registered one": (
        f"""
        def prepare(self, run):
            self.opt = torch.optim.Adam(run.networks[0].body.parameters(), lr=0.1)

        def training_step(self, run, batch):
            run.backward_step({CE})
            self.opt.step()
        """,
        "an optimiser that is not registered (Adam) trains run.networks[0]",
    ),
    "a registered optimiser, stepped by hand": (
        f"""
        def prepare(self, run):
            params = run.networks[0].parameters()
            self.opt = run.optimise(params, lambda p: torch.optim.SGD(p, lr=0.1), "mine")

        def training_step(self, run, batch):
            {CE}.backward()
            self.opt.step()
        """,
        "the optimiser 'mine' was stepped outside of run.backward_step",
    ),
    "a network that is trained in prepare": (
        f"""
        def prepare(self, run):
            opt = torch.optim.SGD(run.networks[0].parameters(), lr=0.1)
            batch = run.batch(run.order()[:9])
            {CE}.backward()
            opt.step()

        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)
        """,
        "an optimiser that is not registered (SGD) trains run.networks[0]",
    ),
    "no step at all": (
        "def training_step(self, run, batch): return run.networks[0](batch.images)",
        "epoch 0 ended without a call of run.backward_step",
    ),
    "an epoch without a step": (
        f"""
        def training_step(self, run, batch):
            if run.epoch != 1: run.backward_step({CE})
        """,
        "epoch 1 ended without a call of run.backward_step",
    ),
    "an empty plan": (
        """
        def batches(self, run, epoch):
            yield from ()

        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)
        """,
        "epoch 0 ended without a call of run.backward_step",
    ),
    "weights that are moved by hand": (
        f"""
        def training_step(self, run, batch):
            {CE}.backward()
            for p in run.networks[0].parameters():
                p.data -= 0.1 * p.grad
        """,
        "epoch 0 ended without a call of run.backward_step",
    ),
    "a second network whose weights are moved by hand": (
        f"""
        num_networks = 2

        def training_step(self, run, batch):
            run.backward_step({CE}, "network0")
            F.cross_entropy(run.networks[1](batch.images), batch.labels).backward()
            for p in run.networks[1].parameters():
                p.data -= 0.1 * p.grad

        def predict(self, run, images):
            return run.networks[0](images) + run.networks[1](images)
        """,
        "run.networks[1] was trained in epoch 0, in which none of its optimisers was stepped",
    ),
}

# Bodies of methods that only look so.
FINE = {
    "an inner fit of its own parameter": f"""
        def prepare(self, run):
            self.t = nn.Parameter(torch.ones(()))

        def on_epoch_start(self, run, epoch):
            opt = torch.optim.LBFGS([self.t])
            def close():
                opt.zero_grad()
                value = (self.t - 2) ** 2
                value.backward()
                return value
            opt.step(close)

        def training_step(self, run, batch):
            run.backward_step({CE})
        """,
    "a second network that averages the first": f"""
        num_networks = 2

        def training_step(self, run, batch):
            run.backward_step({CE}, "network0")
            for old, new in zip(run.networks[1].parameters(), run.networks[0].parameters()):
                old.data.lerp_(new.data, 0.5)

        def predict(self, run, images):
            return run.networks[1](images)
        """,
    "a network with two optimisers in turn": f"""
        def prepare(self, run):
            params = run.networks[0].parameters()
            run.optimise(params, lambda p: torch.optim.Adam(p, lr=1e-4), "late")

        def training_step(self, run, batch):
            run.backward_step({CE}, "late" if run.epoch else "network0")
        """,
    "a declared epoch without a step": f"""
        trains_every_epoch = False

        def training_step(self, run, batch):
            if run.epoch != 1: run.backward_step({CE})
        """,
}


def run_of(tmp_path, body):
    lines = body.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    text = "class M(Method):\n" + "".join(f"    {line[indent:]}\n" for line in lines)
    folder = method_file(tmp_path / "m", "mine", text)
    sw = sweep(tmp_path / "out", {"mine": {}}, methods_dir=folder, epochs=3, subset=200)
    sw.run()
    return sw


@pytest.mark.parametrize("kind", PAST)
def test_a_training_past_backward_step_fails(tmp_path, kind):
    body, says = PAST[kind]
    (record,) = run_of(tmp_path, body).failures()
    assert record.error_message.startswith("MethodError: mine.py"), record.error_message
    assert says in record.error_message
    assert "fix: " in record.error_message


@pytest.mark.parametrize("kind", FINE)
def test_what_only_looks_so_is_trained(tmp_path, kind):
    failures = run_of(tmp_path, FINE[kind]).failures()
    assert failures == [], failures[0].error
