"""The fork server ends with the sweep, however the sweep has ended, also if it starts ahead."""

import socket
import subprocess
import sys
import time
from concurrent import futures

import pytest

from nlbench import executors
from nlbench.executors import Choice, _fork_server
from nlbench.executors._fork_server import ForkServer

# Taken before the tests' settings replace it.
STARTED_AHEAD = executors.started_ahead


def goes_on(pid):
    """Return whether a process is there, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid, seconds=30):
    """Wait until a process has ended, and return whether it has."""
    deadline = time.monotonic() + seconds
    while goes_on(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not goes_on(pid)


def test_a_sweep_that_was_killed_with_unread_replies_ends_the_server_without_a_word(capfd):
    server = ForkServer()
    server.prepare([], 1)
    # The first reply says that it is ready. Closing with unread bytes resets the connection, as the
    # end of a killed process does.
    assert server.control.recv(1, socket.MSG_PEEK)
    server.control.close()
    assert server.wait() == 0
    assert capfd.readouterr().err == ""


def test_a_server_that_nobody_needs_any_more_ends_without_a_word(capfd):
    server = ForkServer()
    server.control.close()
    assert server.wait() == 0
    assert capfd.readouterr().err == ""


@pytest.fixture
def made(monkeypatch):
    """Return a list of the servers that are started, none of which has a process."""
    servers = []

    class Server:
        def __init__(self):
            servers.append(self)
            self.ended = False

        def end(self):
            self.ended = True

    monkeypatch.setattr(_fork_server, "ForkServer", Server)
    return servers


def test_a_server_that_was_started_ahead_is_taken_once(made):
    with STARTED_AHEAD(Choice()):
        assert len(made) == 1
        assert _fork_server.take() is made[0]
        assert _fork_server.take() is made[1]
    # They belong to the sweep that has taken them.
    assert not any(server.ended for server in made)

    with pytest.raises(KeyboardInterrupt), STARTED_AHEAD(Choice()):
        raise KeyboardInterrupt
    assert made[2].ended
    with STARTED_AHEAD(Choice()):
        _fork_server.end_ahead()
        assert made[3].ended


def test_a_sweep_takes_and_ends_only_the_server_of_its_own_thread(made):
    def sweep_with_nothing_to_do():
        with STARTED_AHEAD(Choice()):
            _fork_server.end_ahead()

    def sweep_without_one():
        _fork_server.end_ahead()
        assert _fork_server.take() is made[2]

    with STARTED_AHEAD(Choice()), futures.ThreadPoolExecutor() as pool:
        pool.submit(sweep_with_nothing_to_do).result()
        pool.submit(sweep_without_one).result()
        assert [server.ended for server in made] == [False, True, False]
        assert _fork_server.take() is made[0]


@pytest.mark.parametrize("name", ["local", "ray"])
def test_an_executor_without_a_fork_server_starts_none(name, monkeypatch):
    monkeypatch.setattr(_fork_server, "ForkServer", None)
    with STARTED_AHEAD(Choice(name)):
        pass


# It is killed while it imports torch, when the system does not yet end it with its parent, and
# while it waits to be told what its runs need.
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_a_server_that_was_started_ahead_ends_with_a_command_that_is_killed(seconds):
    code = (
        "import time; from nlbench.executors import _fork_server as ahead\n"
        "print(ahead.ForkServer().pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as command:
        pid = int(command.stdout.readline())
        time.sleep(seconds)
        assert goes_on(pid)
        command.kill()
        command.wait()
        assert ends(pid)
