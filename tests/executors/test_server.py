"""The fork server ends with the sweep, however the sweep has ended."""

import os
import socket
import subprocess
import sys

SERVE = (
    "import sys; from nlbench.executors import _server; _server.serve(*map(int, sys.argv[1:]), [])"
)


def test_a_sweep_that_was_killed_with_unread_replies_ends_the_server_without_a_word():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", SERVE, str(theirs.fileno()), str(os.getpid())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as server:
        theirs.close()
        # The first reply says that it is ready. Closing with unread bytes resets the connection,
        # as the end of a killed process does.
        assert ours.recv(1, socket.MSG_PEEK)
        ours.close()
        assert server.communicate(timeout=60)[1] == b""
    assert server.returncode == 0
