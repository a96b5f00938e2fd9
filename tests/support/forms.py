"""The three losses of nlbench.ops, each with its formula in float64, differentiated by autograd."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from nlbench import ops

BETA, LAM = 0.7, 3.0
ALPHA, LAM_E = 0.9, 0.3

# (B, C). Of odd numbers of classes, vector instructions leave a rest.
SIZES = [(1, 1), (1, 10), (7, 2), (7, 10), (128, 10), (128, 100), (33, 17), (33, 101), (33, 1000)]


@dataclass
class Given:
    """Hold the arguments of all losses. Each form takes those that it needs."""

    logits: torch.Tensor  # [B, C]
    labels: torch.Tensor  # [B]
    index: torch.Tensor  # [B]
    targets: torch.Tensor  # [N, C]
    soft: torch.Tensor  # [B, C]
    mixed: torch.Tensor  # [B, C]

    def with_logits(self, logits):
        """Return the same with other logits."""
        return replace(self, logits=logits)

    def copied(self):
        """Return the same with a copy of the targets, because losses update them in place."""
        return replace(self, targets=self.targets.clone())


def make_given(B, C, stage="early", dtype=torch.float32, seed=0):
    """Make the arguments of a loss.

    Early in training logits are small and targets begin to fill; late, a confident model has
    targets that agree with it.
    """
    rng = torch.Generator().manual_seed(seed)
    N = B + 5
    logits = torch.randn(B, C, generator=rng, dtype=torch.float64)
    index = torch.randperm(N, generator=rng)[:B]
    targets = torch.rand(N, C, generator=rng, dtype=torch.float64)
    targets *= 0.3 / targets.sum(1, keepdim=True)
    mixed = 0.3 * targets[index]

    if stage == "late":
        logits *= 12
        mixed = logits.softmax(1)
        targets[index] = mixed

    labels = torch.randint(C, (2, B), generator=rng)
    soft = 0.8 * F.one_hot(labels[0], C).double() + 0.2 * F.one_hot(labels[1], C)
    # Targets are float32 even beside bfloat16 logits.
    wide = torch.promote_types(dtype, torch.float32)
    return Given(
        logits.to(dtype), labels[0], index, targets.to(wide), soft.to(wide), mixed.to(wide)
    )


class Elr:
    """ELR with given labels: updates the targets, then takes the loss."""

    name, updates = "elr", True

    @staticmethod
    def step(g):
        return ops.elr_step(g.logits, g.labels, g.index, g.targets, beta=BETA, lam=LAM)

    @staticmethod
    def loss(g, reduction="mean"):
        return ops.elr_loss(
            g.logits, g.labels, g.index, g.targets, beta=BETA, lam=LAM, reduction=reduction
        )

    @staticmethod
    def formula(g):
        z = g.logits.detach().double().requires_grad_()
        memory = g.targets.double().clone()

        q = torch.clamp(torch.softmax(z, dim=1), 1e-4, 1 - 1e-4)
        with torch.no_grad():
            new = q / q.sum(dim=1, keepdim=True)
            memory[g.index] = BETA * memory[g.index] + (1 - BETA) * new

        agreement = torch.einsum("bc,bc->b", memory[g.index], q)
        losses = F.cross_entropy(z, g.labels, reduction="none") + LAM * torch.log(1 - agreement)
        return *differentiated(losses, z), memory


class Soft:
    """ELR+ with soft labels and targets that are already mixed: updates nothing."""

    name, updates = "elr-plus", False

    @staticmethod
    def step(g):
        return ops.elr_step_soft(g.logits, g.soft, g.mixed, lam=LAM)

    @staticmethod
    def loss(g, reduction="mean"):
        return ops.elr_loss_soft(g.logits, g.soft, g.mixed, lam=LAM, reduction=reduction)

    @staticmethod
    def formula(g):
        z = g.logits.detach().double().requires_grad_()
        q = torch.softmax(z, 1).clamp(1e-4, 1 - 1e-4)
        agreement = torch.einsum("bc,bc->b", g.mixed.double(), q)

        log_p = z - z.logsumexp(1, keepdim=True)
        # Where a label is 0 and log_p is -inf, their product would be nan.
        ce = -torch.where(g.soft == 0, 0.0, g.soft.double() * log_p).sum(1)
        return *differentiated(ce + LAM * (1 - agreement).log(), z), g.targets.double()


class Alr:
    """ALR, which needs no labels: updates the targets, then takes the loss."""

    name, updates = "alr", True

    @staticmethod
    def step(g):
        return ops.alr_step(g.logits, g.index, g.targets, alpha=ALPHA, lam_e=LAM_E)

    @staticmethod
    def loss(g, reduction="mean"):
        return ops.alr_loss(
            g.logits, g.index, g.targets, alpha=ALPHA, lam_e=LAM_E, reduction=reduction
        )

    @staticmethod
    def formula(g):
        z = g.logits.detach().double().requires_grad_()
        log_p = z - z.logsumexp(1, keepdim=True)
        memory = g.targets.double().clone()
        memory[g.index] = ALPHA * memory[g.index] + (1 - ALPHA) * log_p.detach().exp()

        losses = -(memory[g.index] * log_p).sum(1) - LAM_E * (log_p.exp() * log_p).sum(1)
        return *differentiated(losses, z), memory


FORMS = [Elr, Soft, Alr]


def differentiated(losses, z):
    """Return (losses, gradient of their mean), without a graph."""
    if len(losses) == 0:
        return losses.detach(), torch.zeros_like(z)
    (grad,) = torch.autograd.grad(losses.mean(), z)
    return losses.detach(), grad


def off_the_bounds(logits, by=1e-6):
    """Mark rows whose probabilities are not within `by` of a bound of the clamp.

    At a bound rounding decides whether a gradient passes.
    """
    p = logits.double().softmax(1)
    near = ((p - 1e-4).abs() < by) | ((p - (1 - 1e-4)).abs() < by)
    return ~near.any(1)


def close(got, want, tol):
    """Compare, within `tol` of the largest entry of `want`."""
    scale = float(want.abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tol * scale)
