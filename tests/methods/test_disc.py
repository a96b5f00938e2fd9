"""DISC: its sets by hand, its loss and six epochs against plain loops, its warm-up, empty sets."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lab import Examples, in_float64, make_run, make_task, no_views, small_network, train
from torch import nn

from nlbench import registry
from nlbench.method import Batch, Task
from nlbench.ops.disc import draw_mixup

DISC = registry.load_method(registry.method_files()["disc"])
SETS = ("clean", "hard", "purified")


def make_batch(weak, strong, labels, index=None):
    index = torch.arange(len(labels)) if index is None else index
    return Batch(weak, labels, index, no_views, lambda index, k: strong)


# ---- Plain re-implementation, one example after the other ----------------------------------------


def ref_softmax(row):
    top = max(row)
    parts = [math.exp(x - top) for x in row]
    return [part / sum(parts) for part in parts]


def ref_select(probs, labels, taus, momentum):
    """Return a set's name and a label for each example at the end of an epoch.

    Args:
        taus: thresholds [weak, strong] of each example; they move afterwards, in place.
    """
    found = []

    for (weak, strong), y, tau in zip(probs, labels, taus, strict=True):
        hits = (weak[y] > tau[0]) + (strong[y] > tau[1])
        mean = [(a + b) / 2 for a, b in zip(weak, strong, strict=True)]
        sure = max(mean) > min((tau[0] + tau[1]) / 2 + 0.5, 0.99)
        if hits:
            found.append((("hard", "clean")[hits - 1], y))
        else:
            found.append(("purified" if sure else "none", mean.index(max(mean))))
        for view, p in enumerate((weak, strong)):
            tau[view] = momentum * tau[view] + (1 - momentum) * max(p)
    return found


def ref_ce(z, y):
    return torch.logsumexp(z, 0) - z[y]


def ref_mixup(network, images, labels, draws):
    """Return the mean loss of the images, each mixed with another one."""
    # A lone image is mixed with itself. Batch normalisation cannot train on a batch of one, so
    # the image occurs twice.
    if len(images) == 1:
        images, labels = images * 2, labels * 2
    share, order = draws.beta(5.0, 5.0), draws.permutation(len(images))
    mixed = []
    for i, k in enumerate(order):
        mixed.append(share * images[i] + (1 - share) * images[k])

    z = network(torch.stack(mixed))
    total = 0.0
    for i, k in enumerate(order):
        total = total + share * ref_ce(z[i], labels[i]) + (1 - share) * ref_ce(z[i], labels[k])
    return total / len(images)


def ref_loss(network, logits, views, labels, found, lam_h, q, draws):
    """Return the authors' sum over the views, halved; None where nothing is selected."""
    B = len(labels)
    selected = [i for i in range(B) if found[i][0] != "none"]
    if not selected:
        return None
    total = 0.0

    # The authors multiply the mean over a set by the set's share of the batch. That is the sum
    # over the set, divided by the batch size.
    for z in (logits[:B], logits[B:]):
        for i in range(B):
            ce = ref_ce(z[i], int(labels[i]))
            if found[i][0] == "clean":
                total = total + ce / B
            elif found[i][0] == "hard":
                total = total + lam_h * (1 - torch.exp(-ce) ** q) / q / B

    targets = [found[i][1] for i in selected]
    for view in views:
        total = total + ref_mixup(network, [view[i] for i in selected], targets, draws)
    return total / 2


def ref_draws(run):
    """Return NumPy draws from the stream that the method mixes by."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator("mixup"))))


# ---- Sets ----------------------------------------------------------------------------------------


class Recorder(SimpleNamespace):
    """A run whose network returns the images as logits. It keeps the loss and takes no step."""

    def __init__(self, epoch, network=None):
        super().__init__(epoch=epoch, networks=[network or nn.Identity()], loss=None)

    def generator(self, name):
        return torch.Generator().manual_seed(sum(map(ord, name)))

    def backward_step(self, loss, *names):
        self.loss = loss


def step(method, run, batch):
    """Take a step on a batch, as an item of the method's plan."""
    if run.epoch < method.warmup:
        return method.training_step(run, batch)
    selected = (method.clean | method.hard | method.purified)[batch.index]
    mixup = draw_mixup(selected, method.alpha, method.rng, torch.device("cpu"))
    return method.training_step(run, batch, mixup)


def an_epoch(method, weak, strong, labels, epoch=0, size=None):
    """Run an epoch in batches of `size`, with the examples in reverse."""
    run = Recorder(epoch)
    method.on_epoch_start(run, epoch)
    for index in torch.arange(len(labels)).flip(0).split(size or len(labels)):
        step(method, run, make_batch(weak[index], strong[index], labels[index], index))
    method.on_epoch_end(run, epoch)


def sets_of(method):
    """Return the name of each example's set, and check that it is in one set at most."""
    names = ["none"] * len(method.clean)

    for name in SETS:
        for i in getattr(method, name).nonzero().flatten().tolist():
            assert names[i] == "none"
            names[i] = name
    return names


# p weak, p strong, label, thresholds before -> set. The momentum is 0.9, so a threshold moves by a
# tenth of the way afterwards.
BY_HAND = [
    ([0.7, 0.2, 0.1], [0.6, 0.3, 0.1], 0, (0.2, 0.2), "clean"),
    # The label is not the top class, but its probability is above the threshold.
    ([0.3, 0.4, 0.3], [0.3, 0.4, 0.3], 0, (0.2, 0.2), "clean"),
    ([0.7, 0.2, 0.1], [0.2, 0.6, 0.2], 0, (0.25, 0.25), "hard"),
    ([0.1, 0.8, 0.1], [0.8, 0.1, 0.1], 0, (0.2, 0.2), "hard"),
    # 0.3 is above 0.28. The updated threshold, 0.9 * 0.28 + 0.06 = 0.312, counts only for the
    # next epoch.
    ([0.3, 0.6, 0.1], [0.3, 0.6, 0.1], 0, (0.28, 0.28), "clean"),
    ([0.3, 0.6, 0.1], [0.3, 0.6, 0.1], 0, (0.32, 0.32), "none"),
    # Each view has its own threshold.
    ([0.3, 0.6, 0.1], [0.3, 0.6, 0.1], 0, (0.28, 0.32), "hard"),
    ([0.3, 0.6, 0.1], [0.3, 0.6, 0.1], 0, (0.32, 0.28), "hard"),
    # Purified needs a mean of the views above the mean threshold + 0.5: 0.95 > 0.1 + 0.5.
    ([0.02, 0.96, 0.02], [0.02, 0.94, 0.04], 0, (0.1, 0.1), "purified"),
    # Each view is sure, but of another class, so their mean is not.
    ([0.02, 0.96, 0.02], [0.02, 0.04, 0.94], 0, (0.1, 0.1), "none"),
    # 0.79 < 0.3 + 0.5.
    ([0.02, 0.96, 0.02], [0.04, 0.62, 0.34], 0, (0.3, 0.3), "none"),
    # 0.81 > 0.3 + 0.5. By the updated thresholds the bound would be 0.851.
    ([0.02, 0.96, 0.02], [0.04, 0.66, 0.30], 0, (0.3, 0.3), "purified"),
    # 0.79 > 0.275 + 0.5.
    ([0.02, 0.96, 0.02], [0.04, 0.62, 0.34], 0, (0.25, 0.3), "purified"),
    # The bound is 0.99 at most, whatever the thresholds: 0.96 and 0.988 are below it.
    ([0.02, 0.96, 0.02], [0.02, 0.96, 0.02], 1, (0.97, 0.97), "none"),
    ([0.006, 0.988, 0.006], [0.006, 0.988, 0.006], 0, (0.9, 0.9), "none"),
    ([0.004, 0.992, 0.004], [0.004, 0.992, 0.004], 0, (0.9, 0.9), "purified"),
]


@pytest.mark.parametrize("size", [1, 5, 16])
# Epoch 0 is in the warm-up, epoch 4 after it.
@pytest.mark.parametrize("epoch", [0, 4])
def test_sets_by_hand(size, epoch):
    N = len(BY_HAND)
    weak, strong, labels, taus, expected = zip(*BY_HAND, strict=True)
    labels = torch.tensor(labels)
    method = DISC(Task(N, 3, labels, 6, 1, N), momentum=0.9)
    method.thresholds.copy_(torch.tensor(taus))

    # The network of `an_epoch` returns the images as logits; the softmax of log p is p.
    an_epoch(method, torch.tensor(weak).log(), torch.tensor(strong).log(), labels, epoch, size)

    assert sets_of(method) == list(expected)

    for i, name in enumerate(expected):
        # Class 1 has the highest mean in every purified example above.
        if name == "purified":
            assert method.guess[i] == 1
        moved = [0.9 * taus[i][0] + 0.1 * max(weak[i]), 0.9 * taus[i][1] + 0.1 * max(strong[i])]
        assert method.thresholds[i].tolist() == pytest.approx(moved, rel=1e-5)


def test_a_probability_at_its_threshold_is_not_above_it():
    task = Task(3, 3, torch.zeros(3, dtype=torch.int64), 6, 1, 3)
    method = DISC(task)
    method.thresholds.fill_(0.25)
    method.of_label.copy_(torch.tensor([[0.25, 0.25], [0.25, 0.2500001], [0.25, 0.25]]))
    method.sureness.copy_(torch.tensor([0.75, 0.75, 0.7500001]))
    method.seen.fill_(True)
    method.on_epoch_end(Recorder(0), 0)
    assert sets_of(method) == ["none", "hard", "purified"]


def test_before_the_first_epoch_ends_all_are_clean_and_then_by_thresholds_of_one_over_N():
    weak, strong, labels = views_of("early", 40, 10, seed=3)
    method = DISC(Task(40, 10, labels, 6, 1, 40)).double()
    torch.testing.assert_close(method.thresholds, torch.full((40, 2), 1 / 40, dtype=torch.float64))
    assert set(sets_of(method)) == {"clean"}

    # The thresholds were filled in float32, where 1/40 is rounded.
    method.thresholds.fill_(1 / 40)
    an_epoch(method, weak, strong, labels, size=7)

    taus = [[1 / 40, 1 / 40] for _ in range(40)]
    weak_probs, strong_probs = map(ref_softmax, weak.tolist()), map(ref_softmax, strong.tolist())
    probs = list(zip(weak_probs, strong_probs, strict=True))
    names, _ = zip(*ref_select(probs, labels.tolist(), taus, 0.99), strict=True)

    assert sets_of(method) == list(names)
    torch.testing.assert_close(
        method.thresholds, torch.tensor(taus, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_memory_is_a_few_numbers_an_example_whatever_the_classes():
    for C in (10, 1000):
        method = DISC(Task(100, C, torch.zeros(100, dtype=torch.int64), 6, 1, 100))
        # Twelve numbers an example, flags included. A table of N x C would add C to them.
        assert sum(buffer.numel() for buffer in method.buffers()) == 12 * 100


def test_an_epoch_that_is_a_part_of_the_examples_changes_nothing_of_the_others():
    weak, strong, labels = views_of("early", 40, 10, seed=3)
    method, whole = (DISC(Task(40, 10, labels, 6, 1, 40)).double() for _ in range(2))
    first = torch.arange(25)
    for each in (method, whole):
        an_epoch(each, weak, strong, labels, size=7)
    before = method.thresholds.clone(), sets_of(method)
    method.on_epoch_start(Recorder(1), 1)
    method.remember(
        torch.cat([-weak[first], -strong[first]]),
        make_batch(weak[first], strong[first], labels[first], first),
    )
    method.on_epoch_end(Recorder(1), 1)

    assert torch.equal(method.thresholds[25:], before[0][25:])
    assert sets_of(method)[25:] == before[1][25:]
    assert not torch.equal(method.thresholds[:25], before[0][:25])

    unseen = DISC(Task(40, 10, labels, 6, 1, 40)).double()
    unseen.on_epoch_start(Recorder(0), 0)
    unseen.remember(
        torch.cat([weak[first], strong[first]]),
        make_batch(weak[first], strong[first], labels[first], first),
    )
    unseen.on_epoch_end(Recorder(0), 0)

    # An example that was never seen has no probabilities to select it by. It keeps its cross
    # entropy, as a clean one.
    assert set(sets_of(unseen)[25:]) == {"clean"}


# ---- Loss ----------------------------------------------------------------------------------------


def views_of(stage, B, C, seed):
    scale = {"early": 1.0, "late": 12.0}[stage]
    generator = torch.Generator().manual_seed(seed)
    weak = scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    strong = weak + 0.5 * scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    labels = torch.randint(C, (B,), generator=generator)
    labels[::3] = weak[::3].argmax(1)
    return weak, strong, labels


def put_sets(method, names, guess):
    for name in SETS:
        setattr(method, name, torch.tensor([other == name for other in names]))
    method.guess = guess


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(
    "kinds", [("clean", "hard", "purified", "none"), *[(name, "none") for name in SETS]], ids=str
)
def test_loss_and_gradients_match_the_formula(kinds, C, stage, dtype, tolerance):
    """By the sets of the epoch before, which have nothing to do with this epoch's predictions."""
    B = 41
    weak, strong, labels = views_of(stage, B, C, seed=C)
    weak, strong = weak.to(dtype), strong.to(dtype)
    generator = torch.Generator().manual_seed(C + 1)
    names = [kinds[k] for k in torch.randint(len(kinds), (B,), generator=generator).tolist()]
    guess = torch.randint(C, (B,), generator=generator)
    method = DISC(Task(B, C, labels, 6, 1, B), lam_h=0.2, warmup_share=0.0)
    put_sets(method, names, guess.clone())
    run = Recorder(epoch=3)
    method.on_epoch_start(run, 3)
    mine = [weak.clone().requires_grad_(), strong.clone().requires_grad_()]
    logits = step(method, run, make_batch(*mine, labels))

    # A step returns the logits of the weak views alone: the online accuracy counts those.
    assert torch.equal(logits, weak)
    assert run.loss.dtype == dtype
    # The sets stay the same until the epoch ends.
    assert sets_of(method) == names

    got = torch.autograd.grad(run.loss, mine)

    theirs = [weak.double().requires_grad_(), strong.double().requires_grad_()]
    found = []
    for i, name in enumerate(names):
        target = guess[i] if name == "purified" else labels[i]
        found.append((name, int(target)))
    expected = ref_loss(
        nn.Identity(), torch.cat(theirs), theirs, labels, found, 0.2, 0.7, ref_draws(run)
    )

    torch.testing.assert_close(
        run.loss.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance
    )
    for a, b in zip(got, torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_mixup_is_not_scaled_by_how_many_are_selected():
    """Select two purified examples of one guess, among 4 or among 40.

    There is no other term, and mixing makes no difference.
    """
    values = []

    for B in (4, 40):
        logits = torch.zeros(B, 3, dtype=torch.float64)
        logits[:2] = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64)
        labels = torch.zeros(B, dtype=torch.int64)
        method = DISC(Task(B, 3, labels, 6, 1, B), warmup_share=0.0)
        put_sets(method, ["purified"] * 2 + ["none"] * (B - 2), labels + 1)
        run = Recorder(epoch=1)
        method.on_epoch_start(run, 1)
        step(method, run, make_batch(logits, logits, labels))
        values.append(float(run.loss))

    # Each view has this cross entropy, and the sum over the two views is halved.
    ce = math.log(math.exp(0.5) + math.exp(1) + math.exp(-1)) - 1
    assert values == pytest.approx([ce, ce], rel=1e-12)


def test_weak_mixes_with_weak_and_strong_with_strong_each_with_its_own_draw():
    B = 12
    passed = []
    run = Recorder(1, lambda images: (passed.append(images), images)[1])
    labels = torch.zeros(B, dtype=torch.int64)
    method = DISC(Task(B, B, labels, 6, 1, B), warmup_share=0.0)
    put_sets(method, ["clean"] * (B - 2) + ["none"] * 2, labels)
    method.on_epoch_start(run, 1)
    # With unit vectors as images, the entries of a mixed image are the shares of its parts.
    weak = torch.eye(B, dtype=torch.float64)
    step(method, run, make_batch(weak, -weak, labels))

    assert torch.equal(passed[0], torch.cat([weak, -weak]))
    draws = []
    for mixed, sign in zip(passed[1:], (1, -1), strict=True):
        assert len(mixed) == B - 2
        assert (sign * mixed >= 0).all()
        assert (mixed[:, B - 2 :] == 0).all()
        torch.testing.assert_close(sign * mixed.sum(1), torch.ones(B - 2, dtype=torch.float64))
        # On the diagonal is an image's own share; it is 1 where an image was mixed with itself.
        shares = {round(own, 9) for own in (sign * mixed.diagonal()).tolist()} - {1.0}
        assert len(shares) == 1
        draws.append((shares.pop(), (sign * mixed - torch.eye(B - 2, B)).argmax(1).tolist()))

    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


# ---- Warm-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "share", "warmup"),
    [(200, 0.1, 20), (200, 15 / 200, 15), (40, 0.1, 4), (3, 0.1, 1), (10, 0.0, 0)],
)
def test_warmup_is_cross_entropy_on_both_views_and_moves_the_thresholds(epochs, share, warmup):
    weak, strong, labels = views_of("early", 12, 10, seed=2)
    method = DISC(Task(12, 10, labels, epochs, 1, 12), warmup_share=share).double()
    method.thresholds.fill_(1 / 12)
    ce = 0.0
    for view in (weak, strong):
        for z, y in zip(view, labels.tolist(), strict=True):
            ce += float(ref_ce(z, y)) / 12 / 2
    tau, p = 1 / 12, ref_softmax(weak[0].tolist())

    for epoch in range(min(epochs, warmup + 2)):
        seen = []
        run = Recorder(epoch, lambda images, seen=seen: (seen.append(len(images)), images)[1])
        method.on_epoch_start(run, epoch)
        selected = 12 - sets_of(method).count("none")
        step(method, run, make_batch(weak, strong, labels))
        method.on_epoch_end(run, epoch)
        if epoch < warmup:
            assert float(run.loss) == pytest.approx(ce, rel=1e-12)
            # The two views in one forward pass, and no mixed images.
            assert seen == [24]
        else:
            # The epoch before selected the examples; the first epoch uses all of them.
            assert selected == 12 if epoch == 0 else selected > 0
            assert seen == [24, selected, selected]
        tau = 0.99 * tau + 0.01 * max(p)
        assert float(method.thresholds[0, 0]) == pytest.approx(tau, rel=1e-12)


# ---- Trainings -----------------------------------------------------------------------------------


class Sharp(nn.Module):
    """A small network whose confidence comes quickly."""

    def __init__(self, task):
        super().__init__()
        self.body = small_network(task)

    def forward(self, rows):
        return 4 * self.body(rows)


def double_run(task, lr=0.1):
    return in_float64(make_run(task, networks=[Sharp(task)], lr=lr))


def test_six_epochs_against_a_plain_re_implementation():
    # The last batch of an epoch is a single example.
    N, B = 41, 20
    task = make_task(N=N, C=4, epochs=6, batch_size=B)
    run = double_run(task)
    method = DISC(task, momentum=0.6, lam_h=0.4, warmup_share=0.2).double()
    method.thresholds.fill_(1 / N)
    network, start = copy.deepcopy(run.networks[0]), copy.deepcopy(run.networks[0].state_dict())
    taus, probs, found = [[1 / N, 1 / N] for _ in range(N)], [None] * N, [("none", None)] * N
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    # A second run of the same seed has the same order and augmentations.
    source = double_run(task)
    method.prepare(run)
    count, idle = {"clean": 0, "hard": 0, "purified": 0, "none": 0}, 0

    for epoch in range(6):
        train(method, run, [epoch])
        source.begin_epoch(epoch)
        draws = ref_draws(source)
        for index in source.order().split(B):
            batch = source.batch(index)
            views = batch.images, batch.strong(0)
            assert not torch.equal(*views)
            logits = network(torch.cat(views))
            for i, weak, strong in zip(
                index.tolist(), logits[: len(index)], logits[len(index) :], strict=True
            ):
                probs[i] = ref_softmax(weak.tolist()), ref_softmax(strong.tolist())
            if epoch < 1:
                loss = 0.0
                for z, y in zip(logits, batch.labels.tolist() * 2, strict=True):
                    loss = loss + ref_ce(z, y) / len(logits)
            else:
                in_batch = [found[i] for i in index.tolist()]
                loss = ref_loss(network, logits, views, batch.labels, in_batch, 0.4, 0.7, draws)
            if loss is None:
                idle += 1
                continue
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, p in network.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + p.grad
                    p -= 0.1 * velocity[name]
        found = ref_select(probs, task.labels.tolist(), taus, 0.6)
        sets = sets_of(method)
        for i, (name, label) in enumerate(found):
            assert sets[i] == name
            if name == "purified":
                assert int(method.guess[i]) == label != int(task.labels[i])
            count[name] += 1
        torch.testing.assert_close(
            method.thresholds, torch.tensor(taus, dtype=torch.float64), rtol=1e-9, atol=1e-12
        )
        for name, value in network.state_dict().items():
            torch.testing.assert_close(
                run.networks[0].state_dict()[name], value, rtol=1e-8, atol=1e-10
            )

    assert min(count.values()) >= 3, count
    assert idle, "no batch without a selected example was among them"
    assert any(not torch.equal(start[name], value) for name, value in network.state_dict().items())


def test_without_a_selected_example_there_is_no_step():
    task = make_task(N=20, C=4, batch_size=20)
    run = make_run(task)
    method = DISC(task, warmup_share=1 / 6)
    # The first epoch gives the optimiser some momentum, which must not move the weights later.
    train(method, run, [0])
    run.take_loss()
    put_sets(method, ["none"] * 20, method.guess)
    before, of_label = copy.deepcopy(run.networks[0]), method.of_label.clone()

    train(method, run, [1])

    assert run.take_loss() == 0.0
    for a, b in zip(before.parameters(), run.networks[0].parameters(), strict=True):
        assert torch.equal(a, b)
    # The forward pass still counts for the sets of the next epoch.
    assert not torch.equal(of_label, method.of_label)
    assert "clean" in sets_of(method)


@pytest.mark.parametrize("kind", SETS)
def test_a_single_selected_example_is_enough(kind):
    task = make_task(N=6, C=4, batch_size=6)
    run = double_run(task)
    method = DISC(task, warmup_share=0.0).double()
    names = ["none", "none", kind, "none", "none", "none"]
    put_sets(method, names, (task.labels + 1) % 4)
    network = copy.deepcopy(run.networks[0]).train()
    batch = run.batch(torch.arange(6))
    method.on_epoch_start(run, 0)
    step(method, run, batch)
    views = batch.images, batch.strong(0)
    # A purified example has the guess as its label, which is the class after its own.
    targets = (task.labels + (kind == "purified")) % 4
    found = list(zip(names, targets.tolist(), strict=True))
    logits = network(torch.cat(views))
    expected = ref_loss(network, logits, views, batch.labels, found, 1.0, 0.7, ref_draws(run))

    assert run.take_loss() == pytest.approx(float(expected.detach()), rel=1e-12)
    expected.backward()
    for mine, theirs in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_alike_views_leave_nothing_hard():
    task = make_task(N=40, C=4, epochs=4)
    run = make_run(task)
    run.images = Examples(40, 7)
    run.images.strong = lambda index, draws, seed: run.images.augmented(index, run.draws(0))
    method = DISC(task, warmup_share=0.0)
    clean = 0

    for epoch in range(4):
        train(method, run, [epoch])
        clean += int(method.clean.sum())
        assert not method.hard.any()

    assert clean > 50
