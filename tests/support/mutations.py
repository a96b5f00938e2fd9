"""Change valid files at random, and say what a reader made of them.

A change is drawn by hypothesis as plain data, so that a failing example is small and can be
repeated. `outcome` calls a reader as a user would, and tells a message from a traceback.
"""

import copy
import io
import json
import os
import signal
import warnings
import zipfile

from hypothesis import strategies as st

from nlbench.errors import UserError

# Inputs of each reader: a few in every run of the tests, thousands at night.
EXAMPLES = 3000 if os.environ.get("NLBENCH_TEST_PROFILE") == "nightly" else 40

# No input of a few kilobytes may take more time of the CPU.
SECONDS = 10

READ, REFUSED = "read", "refused"

# Bytes that mean something in one of the formats.
TOKENS = [
    b"\0", b"\xff", b"\x80\x04", b"\x1b[31m", b"\r", b"\n", b"\t", b",", b";", b'"', b"'", b"{",
    b"}", b"[", b"]", b":", b"-1", b"nan", b"1e999", b"9" * 30, b"null", b"../../x", b"/etc/x",
    b"|", b"PK\x03\x04", b"\x93NUMPY", b"PAR1", b"\x1f\x8b", b"<html", b"\xef\xbb\xbf",
    b"\xff\xfe", b"q\x00", b"h\x00", b"R", b"b", b"0", b".", b"(", b"\x8a\xff", b"Q", b"c",
    b"\xe2\x80\xae",
    b"[" * 3000, b"x" * 5000,
]  # fmt: skip

# Values that JSON can hold and that no file of ours has there.
ODD_VALUES = [
    None, True, False, 0, -1, 1.5, -0.0, 1e308, 10**400, 2**63, "", "x", "0", "../../x", "a\0b",
    "\x1b[31m", "\u202e", "\ud800", "x" * 300, [], {}, [[]], {"": {}}, [None], ["x"], {"x": None},
]  # fmt: skip


# ---- Bytes ---------------------------------------------------------------------------------------


def changes(most=4):
    """Return a strategy of changes of bytes: (kind, where from 0 to 1, a number)."""
    kinds = ["flip", "set", "token", "insert", "delete", "repeat", "cut"]
    where = st.floats(0, 1, exclude_max=True)
    change = st.tuples(st.sampled_from(kinds), where, st.integers(0, 2**16))
    return st.lists(change, min_size=1, max_size=most)


def changed(content, made):
    """Return the content after these changes, one after the other."""
    for kind, where, number in made:
        place = int(where * len(content))
        before, after = content[:place], content[place:]
        if kind == "flip" and after:
            content = before + bytes([after[0] ^ (1 << number % 8)]) + after[1:]
        elif kind == "set" and after:
            content = before + bytes([number % 256]) + after[1:]
        elif kind == "token":
            content = before + TOKENS[number % len(TOKENS)] + after[number % 3 :]
        elif kind == "insert":
            content = before + number.to_bytes(4, "little")[: 1 + number % 4] + after
        elif kind == "delete":
            content = before + after[1 + number % 40 :]
        elif kind == "repeat":
            content = before + after[: number % 200] * (1 + number % 3) + after
        elif kind == "cut" and number % 4 == 0:
            content = before
    return content


def changed_members(content, made):
    """Return a zip archive whose members have these changes, with checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    for i, change in enumerate(made):
        name = names[(change[2] + i) % len(names)]
        members[name] = changed(members[name], [change])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


# ---- JSON ----------------------------------------------------------------------------------------


def value_changes(most=2):
    """Return a strategy of changes of a JSON value: (kind, place, odd value)."""
    kinds = ["replace", "replace", "remove", "add"]
    change = st.tuples(
        st.sampled_from(kinds), st.integers(0, 2**16), st.integers(0, len(ODD_VALUES) - 1)
    )
    return st.lists(change, min_size=1, max_size=most)


def changed_value(value, made):
    """Return a copy of a JSON object after these changes, each at any depth."""
    value = copy.deepcopy(value)
    for kind, place, number in made:
        places = list(_places(value))
        if not places:
            break
        container, key = places[place % len(places)]
        odd = copy.deepcopy(ODD_VALUES[number])
        if kind == "remove":
            del container[key]
        elif kind == "add" and isinstance(container, list):
            container.insert(key, odd)
        elif kind == "add":
            container[f"{key}x"] = odd
        else:
            container[key] = odd
    return value


def _places(value):
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def as_json(value):
    """Return a value as the text of a file, lone halves of characters included."""
    return json.dumps(value).encode()


# ---- Readers -------------------------------------------------------------------------------------


class Hang(BaseException):
    """A reader took longer than SECONDS."""


def _hang(number, frame):
    raise Hang(f"more than {SECONDS} seconds")


def outcome(read):
    """Call `read`, and return READ, or REFUSED after an error with a message for a user.

    Whatever else is raised goes on.
    """
    before = signal.signal(signal.SIGPROF, _hang)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except UserError as error:
        if not str(error).strip():
            raise RuntimeError("a message without words") from error
        return REFUSED
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return READ
