"""How a function ends in a process of its own is told, whatever it does."""

import ctypes
import os
import signal
import sys
import time

import pytest

from nlbench import child
from nlbench.errors import SuiteError


def test_its_value_comes_back_and_its_output_goes_to_standard_error(capfd):
    def function():
        print("junk")
        os.write(1, b"more junk")
        os.environ["NLBENCH_TEST"] = "1"
        return {"a": [1, 2]}, os.getpid()

    value, pid = child.run_apart(function)
    assert value == {"a": [1, 2]}
    assert pid != os.getpid()
    assert "NLBENCH_TEST" not in os.environ
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "more junk" in printed.err


class Bare(BaseException):
    """No Exception."""


def raise_bare():
    raise Bare("bare")


def close_all():
    os.closerange(3, 300)
    return 1


ENDINGS = {
    "ended its process with status 0": lambda: os._exit(0),
    "ended its process with status 7": lambda: os._exit(7),
    "raises SystemExit: 3": lambda: sys.exit(3),
    "raises Bare: bare": raise_bare,
    "raises KeyboardInterrupt": lambda: signal.raise_signal(signal.SIGINT),
    "was ended by SIGABRT": os.abort,
    "was ended by SIGSEGV": lambda: ctypes.string_at(0),
    "was ended by SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "was ended by SIGTERM": lambda: os.killpg(0, signal.SIGTERM),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_how_it_ended_is_said(ending):
    with pytest.raises(child.ChildEnded, match=ending):
        child.run_apart(ENDINGS[ending])


def test_the_line_is_named_and_a_function_that_hangs_is_ended():
    def hang():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass

    began = time.monotonic()
    with pytest.raises(child.ChildEnded, match=r"does not end within 0.3 seconds, .*line \d+ in h"):
        child.run_apart(hang, 0.3, about=__file__)
    assert time.monotonic() - began < 5


def test_closed_files_are_an_ending_too():
    with pytest.raises(child.ChildEnded):
        child.run_apart(close_all)


def test_values_come_one_by_one_until_it_ends():
    def values():
        yield 1
        yield 2
        os._exit(5)

    found = []
    with pytest.raises(child.ChildEnded, match=r"with status 5, last seen in .* in values"):
        found.extend(child.stream_apart(values, about=__file__))
    # extend() takes what came before the error.
    assert found == [1, 2]


def test_chosen_errors_are_passed_on():
    def refuse():
        raise SuiteError("no such thing")
        yield

    with pytest.raises(SuiteError, match="no such thing"):
        list(child.stream_apart(refuse, passed=(SuiteError,)))


def test_a_process_that_has_ended_does_not_go_on():
    assert child.goes_on(os.getpid())
    pid = os.fork()
    if pid == 0:
        os._exit(0)

    # Until its parent has asked for the status, it is still listed.
    deadline = time.monotonic() + 30
    while child.goes_on(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, 0)
    assert not child.goes_on(pid)

    os.waitpid(pid, 0)
    assert not child.goes_on(pid)
