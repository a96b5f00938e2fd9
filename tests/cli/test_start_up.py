"""What each command imports, and how long it takes before and after its work.

`test_command.py` has those that do without torch.
"""

import os
import resource
import subprocess
import sys

import pytest
from trial import NLBENCH

# Runs a command, and prints which of the packages that take long to import it has imported.
HEAVY = """
import sys
sys.argv[0] = "nlbench"
from nlbench import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {
    "IPython", "PIL", "cleanlab", "jinja2", "matplotlib", "mlflow", "pandas", "pyarrow", "rich",
    "scipy", "scipy.stats", "sklearn", "statsmodels", "sympy", "tensorboard", "timm", "torch",
    "torch._dynamo", "torchvision", "wandb",
}
print("imported:", *sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def imported_by(*words):
    """Run a command, and return which heavy packages it has imported."""
    command = [sys.executable, "-c", HEAVY, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("imported:")
    return set(line.split()[1:])


@pytest.mark.parametrize("words", ["--help", "--version", "run --help", "list methods"])
def test_help_and_lists_import_nothing_heavy(place, words):
    assert imported_by(*words.split()) == set()


def test_a_table_imports_the_distributions_of_its_p_values_and_no_more(place, trained):
    # One seed has no p-value, and no distribution is needed then.
    assert imported_by("table", trained) <= {"scipy"}


def test_a_suite_that_is_checked_needs_torch_and_no_other_package_for_numbers(place):
    # Its methods are built, and its network. Where there is no bar to show, rich is not needed.
    assert imported_by("run", "trial.yaml", "--dry-run") == {"torch"}


def seconds(*words):
    """Run the command as it is installed, and return its seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([NLBENCH, *map(str, words)], check=True, timeout=300, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# Three times what two cores of an AMD EPYC take, see docs/benchmarks/start-up.md. Processor time,
# because other processes of the machine delay the clock on the wall.
@pytest.mark.story
def test_what_trains_little_takes_little_time(place, trained):
    assert seconds("table", trained) < 3
    # The fork server is started ahead, and the process of one run. torch is imported twice.
    assert seconds("run", "trial.yaml", "--out", "out", "--only", "ce") < 20
    # Nothing is left to do, so no process is started.
    assert seconds("run", "trial.yaml", "--out", "out", "--only", "ce") < 9
    assert "sklearn" not in imported_by("run", "trial.yaml", "--out", "out", "--only", "ce")
