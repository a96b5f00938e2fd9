"""Defects of own_labels and gradient_parts, which only report: each is found by its own check."""

import pytest
from written_methods import (
    CE,
    FAST_INIT,
    complaints,
    failures,
    function,
    init,
    loss,
    members,
    require_found,
    write,
)

from nlbench.conformance import runner


def own(*lines):
    """Return the hook `own_labels` with these lines."""
    return function("own_labels(self)", *lines)


def parts(*lines):
    """Return the hook `gradient_parts` with these lines."""
    return function("gradient_parts(self, logits, batch)", *lines)


# Trust of each example that the training has an influence on.
KEEPS = (
    init("self.register_buffer('trust', torch.zeros(task.num_train))"),
    loss(
        "p = logits.detach().softmax(1).gather(1, batch.labels[:, None]).squeeze(1)",
        "self.trust[batch.index] = p",
    ),
)
GRADIENT = "g = logits.softmax(1) - F.one_hot(batch.labels, logits.shape[1])"

# body, the check that must fail (and no other), what its message must say
BROKEN = {
    "classes in place of soft labels": (
        members(*KEEPS, own("return self.task.labels.clone()")),
        "own-labels",
        ["own_labels returned numbers above 1", r"F\.one_hot\(classes"],
    ),
    "labels of another number of examples": (
        members(*KEEPS, own("return torch.zeros(70)[: len(self.trust) // 2]")),
        "own-labels",
        [r"own_labels returned \(35,\) float32 and no tensor \(70,\) or \(70, 10\)"],
    ),
    "a fixed number of examples": (
        members(*KEEPS, own("return torch.arange(70) / 70")),
        "own-labels",
        [r"own_labels returned \(70,\) float32 and no tensor \(65,\)"],
    ),
    "an array of NumPy": (
        members(*KEEPS, own("return self.trust.numpy()")),
        "own-labels",
        ["no tensor"],
    ),
    "complex numbers": (
        members(*KEEPS, own("return self.trust.to(torch.complex64)")),
        "own-labels",
        ["no real numbers"],
    ),
    "losses, which are larger for a wrong label": (
        members(*KEEPS, own("return -self.trust.clamp(min=1e-9).log() + 1")),
        "own-labels",
        ["numbers above 1"],
    ),
    "an error": (
        members(*KEEPS, own("return self.weights")),
        "own-labels",
        ["own_labels raised AttributeError: .*weights"],
    ),
    "the end of the process": (
        members(*KEEPS, own("sys.exit(3)")),
        "own-labels",
        ["own_labels raised SystemExit: 3"],
    ),
    "a trace in the state": (
        members(*KEEPS, own("self.trust.mul_(0.5)", "return self.trust")),
        "own-labels",
        [r"own_labels changed self\.trust"],
    ),
    "an opinion that depends on the clock": (
        members(*KEEPS, own("t = time.time() % 1", "return (self.trust + t).clamp(0, 1)")),
        "repeat",
        [r"\d+ of 70 scores that own_labels gives \(own_score\)"],
    ),
    "an opinion that a resume loses": (
        members(
            init("self.trust = torch.zeros(task.num_train)"),
            loss("self.trust[batch.index] += 0.1"),
            own("return (self.trust * torch.arange(len(self.trust)) / 70).clamp(0, 1)"),
        ),
        "resume",
        [r"scores that own_labels gives \(own_score\)"],
    ),
    "an opinion made of the clean labels": (
        members(
            CE,
            own(
                "frame = sys._getframe()",
                "while frame is not None:",
                "    clean = frame.f_locals.get('clean_labels')",
                "    if clean is not None:",
                "        return (clean == self.task.labels).double()",
                "    frame = frame.f_back",
            ),
        ),
        "clean-labels",
        [
            "the clean labels permuted",
            r"scores that own_labels gives",
            r"mine\.py:\d+: .*_getframe",
        ],
    ),
    "the given labels overwritten by an opinion": (
        members(*KEEPS, own("self.task.labels.fill_(0)", "return self.trust")),
        "read-only",
        ["task.labels was written to in `own_labels`"],
    ),
    "an opinion that mixes devices": (
        members(*KEEPS, own("return self.trust * torch.linspace(0, 1, len(self.trust))")),
        "device",
        [r"mine\.py:\d+: return self\.trust \* torch\.linspace"],
    ),
    "terms divided by the batch": (
        members(CE, parts(GRADIENT, "return {'ce': g / len(batch)}")),
        "gradient-parts",
        [r"0\.0625 times the gradient .* one over the batch size: do not divide by it"],
    ),
    "terms with the other sign": (
        members(CE, parts(GRADIENT, "return {'ce': -g}")),
        "gradient-parts",
        ["-1 times the gradient"],
    ),
    "a term that is missing": (
        members(
            loss(value="F.cross_entropy(logits, batch.labels) + logits.square().sum(1).mean()"),
            parts(GRADIENT, "return {'ce': g}"),
        ),
        "gradient-parts",
        [r"epoch 0, step 0: the terms add up to .* at \[\d+, \d\]"],
    ),
    "a term of another shape": (
        members(CE, parts(GRADIENT, "return {'ce': g.mean(1)}")),
        "gradient-parts",
        [r"gradient_parts\['ce'\] is \(16,\) float32", r"a tensor \(16, 10\) for each"],
    ),
    "a term of integers": (
        members(CE, parts("return {'ce': F.one_hot(batch.labels, 10)}")),
        "gradient-parts",
        ["no floating point"],
    ),
    "a name that is no word": (
        members(CE, parts(GRADIENT, "return {'cross entropy': g}")),
        "gradient-parts",
        ["'cross entropy'; names are single words"],
    ),
    "a term that is not finite": (
        members(CE, parts(GRADIENT, "return {'ce': g, 'other': g / 0 * 0}")),
        "gradient-parts",
        [r"epoch 0, step 0: the term 'other' is not finite"],
    ),
    "terms that write to the logits": (
        members(CE, parts("logits.zero_()", GRADIENT, "return {'ce': g}")),
        "gradient-parts",
        ["logits was written to in `gradient_parts`"],
    ),
    "terms that change the state": (
        members(
            FAST_INIT,
            loss(value="F.cross_entropy(logits + self.targets[batch.index], batch.labels)"),
            parts("self.targets[batch.index] += logits", "return None"),
        ),
        "gradient-parts",
        ["with --record-gradients it trains differently"],
    ),
    "terms drawn from the global generator": (
        members(
            loss("logits = logits + torch.rand(1)"),
            parts(GRADIENT, "torch.rand(1)", "return None"),
        ),
        "gradient-parts",
        ["with --record-gradients it trains differently", "nor draw random numbers"],
    ),
    "terms that mix devices": (
        members(CE, parts(GRADIENT, "return {'ce': g * torch.ones(10)}")),
        "gradient-parts",
        [r"mine\.py:\d+: return .*torch\.ones", "on a GPU this fails"],
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


ONLY = ["own-labels", "gradient-parts"]
GOOD = {
    "trust": (members(*KEEPS, own("return self.trust")), {"own-labels"}),
    "booleans": (members(*KEEPS, own("return self.trust > 0.5")), {"own-labels"}),
    "the CPU": (members(*KEEPS, own("return self.trust.cpu()")), {"own-labels"}),
    "targets": (members(FAST_INIT, loss("self.targets[batch.index] += 0.1")), {"own-labels"}),
    "terms": (members(CE, parts(GRADIENT, "return {'ce': g}")), {"gradient-parts"}),
    "neither": (members(CE), set()),
}


@pytest.mark.parametrize("kind", GOOD)
def test_sound_reports_pass_and_missing_ones_are_skipped(tmp_path, kind):
    body, judged = GOOD[kind]
    results = runner.check(write(tmp_path, body), only=ONLY)
    assert not complaints(results)
    assert {one.name for one in results if one.name in ONLY and one.status == "ok"} == judged
    assert all(one.status == "skipped" for one in results if one.name in {*ONLY} - judged)
