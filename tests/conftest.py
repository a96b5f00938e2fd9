"""Settings of all tests: one thread per process, hypothesis profiles, a limit of time."""

import contextlib
import os
import signal

# Two workers share the machine. Set before torch is imported, because OpenMP reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control lets the commands that it starts in the background ignore Ctrl-C, and
# nohup lets them ignore SIGHUP. They would pass that on to the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import chromium
import hypothesis
import pytest

from nlbench import executors

# `dev` draws the same examples every time, so that a run without a change cannot fail.
hypothesis.settings.register_profile("dev", max_examples=100, derandomize=True, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1200, deadline=None)
hypothesis.settings.load_profile(os.environ.get("NLBENCH_TEST_PROFILE", "dev"))

# Tests with these markers are left out of the default run, so they may take their time.
SLOW_MARKERS = {"methods", "story", "build", "nightly"}


def pytest_addoption(parser):
    parser.addoption(
        "--unmarked-limit",
        type=float,
        metavar="SECONDS",
        help="fail when a test without one of the markers methods, story, build and nightly "
        "takes longer",
    )


class UnmarkedLimit:
    """Collect unmarked tests whose call takes too long, and fail the session for them."""

    def __init__(self, seconds):
        self.seconds, self.found = seconds, []

    def pytest_runtest_logreport(self, report):
        marked = SLOW_MARKERS & set(report.keywords)
        # Setup does not count: a shared fixture is made in that of the first test that asks for it.
        if report.when == "call" and report.duration > self.seconds and not marked:
            self.found.append((report.duration, report.nodeid))

    def pytest_terminal_summary(self, terminalreporter):
        if not self.found:
            return
        terminalreporter.section(f"unmarked tests that took over {self.seconds:g} seconds")
        for duration, nodeid in sorted(self.found, reverse=True):
            terminalreporter.line(f"{duration:6.1f} s  {nodeid}")
        terminalreporter.line(
            "Make them faster, or give them the marker that fits (see CONTRIBUTING.md)."
        )

    def pytest_sessionfinish(self, session):
        # A failed test already has an exit status of its own.
        if self.found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config):
    limit = config.getoption("--unmarked-limit")
    # Workers of pytest-xdist only run tests; their reports reach the process that collects here.
    if limit is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(UnmarkedLimit(limit))


@pytest.fixture(autouse=True, scope="session")
def _runs_in_this_process():
    """Train the runs of a sweep in the test's process, unless a test asks for several at once.

    That is what tests with a patch need, and it saves the seconds that a fork server takes to
    start. Tests of how runs are kept apart name the executor. Commands in a process of their own
    have the usual one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            executors,
            "usual",
            lambda options: "local" if options.jobs * len(options.devices) == 1 else "workers",
        )
        # Most sweeps of tests would not take the server that is started ahead.
        patch.setattr(executors, "started_ahead", lambda choice: contextlib.nullcontext())
        yield


@pytest.fixture(scope="session")
def browser():
    """Chromium, for all tests of a process: playwright cannot start a second time beside it."""
    yield from chromium.started()


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return

    # Imported here, because collecting without a GPU test must not wait for torch.
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
