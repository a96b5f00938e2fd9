"""`nlbench check` finds strong views that a run's key would not say anything about."""

from written_methods import members, step, write

from nlbench import registry
from nlbench.conformance.lab import Lab, quiet
from nlbench.conformance.trial import Trial

VISIBLE = members(step("batch.strong(0)"))
# The name is put together at run time, so that no reader of the code can find it.
HIDDEN = members(step("getattr(batch, 'str' + 'ong')(0)"))


def problem_of(folder, text):
    """Return what is wrong with a method in a trial on images, or an empty string."""
    write(folder, text)
    lab = Lab(registry.method_files([folder])["mine"], {}, folder / "records")
    with quiet():
        return lab.attempt(Trial(pixels=True, epochs=1)).problem


def test_a_call_in_the_class_is_fine(tmp_path):
    assert problem_of(tmp_path, VISIBLE) == ""


def test_a_call_that_is_not_found_in_the_code_is_reported_with_its_fix(tmp_path):
    problem = problem_of(tmp_path, HIDDEN)
    assert "key has no version of strong views" in problem
    assert "fix: call batch.strong(k) in a function of the method's class" in problem
