"""The mixup of DISC: what is drawn, and the loss against plain loops."""

import numpy as np
import pytest
import torch

from nlbench.ops.disc import Mixup, draw_mixup

CPU = torch.device("cpu")


def drawn(flags, alpha=5.0, seed=0):
    return draw_mixup(torch.tensor(flags), alpha, np.random.default_rng(seed), CPU)


def test_weak_and_strong_views_have_draws_of_their_own():
    mixup, again = drawn([1, 0, 1, 1, 0, 1]), np.random.default_rng(0)
    assert mixup.selected.tolist() == [0, 2, 3, 5]
    assert len(mixup.draws) == 2
    for share, partner in mixup.draws:
        assert share == again.beta(5.0, 5.0)
        assert partner.tolist() == again.permutation(4).tolist()


def test_nothing_is_drawn_without_a_selected_example():
    rng = np.random.default_rng(3)
    mixup = draw_mixup(torch.zeros(4, dtype=torch.bool), 5.0, rng, CPU)
    assert mixup.selected.tolist() == []
    assert mixup.draws == []
    assert rng.random() == np.random.default_rng(3).random()


def test_a_single_example_has_two_partners():
    mixup = drawn([0, 0, 1])
    assert mixup.selected.tolist() == [2]
    for _, partner in mixup.draws:
        assert sorted(partner.tolist()) == [0, 1]


def test_the_loss_is_the_mean_over_selected_examples_and_views():
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).unbind()
    W = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    mixup = Mixup(
        torch.tensor([1, 2, 5]),
        [(0.75, torch.tensor([2, 0, 1])), (0.25, torch.tensor([0, 2, 1]))],
    )
    expected = 0.0
    for view, (share, partner) in zip(views, mixup.draws, strict=True):
        for position, other in zip([1, 2, 5], partner.tolist(), strict=True):
            other = [1, 2, 5][other]
            z = (share * view[position] + (1 - share) * view[other]) @ W
            log_p = z - torch.log(torch.exp(z).sum())
            y, y_other = int(labels[position]), int(labels[other])
            expected -= float(share * log_p[y] + (1 - share) * log_p[y_other]) / 3 / 2

    loss = mixup.loss(lambda images: images @ W, views, labels)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_a_single_example_is_mixed_with_itself_in_a_batch_of_two():
    views = torch.tensor([[[1.0, 2.0], [3.0, -1.0]], [[2.0, 2.0], [0.5, 0.0]]]).double().unbind()
    sizes = []

    def network(images):
        sizes.append(len(images))
        return images

    mixup = drawn([0, 1])
    loss = mixup.loss(network, views, torch.tensor([0, 1]))

    assert sizes == [2, 2]
    # The cross entropy of class 1 in both views.
    expected = [torch.logsumexp(view[1], 0) - view[1, 1] for view in views]
    assert float(loss) == pytest.approx(float(sum(expected)) / 2, rel=1e-12)
