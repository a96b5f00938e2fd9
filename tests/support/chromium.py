"""Pages in Debian's Chromium, which is watched for errors and for what it asks a network for.

Chromium is the one that NLBENCH_TEST_CHROMIUM names, or `chromium` on the PATH. Nothing is
downloaded: playwright's own browsers are not used.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")

# What `npm ci` installs as package.json beside the tests says.
PACKAGES = Path(__file__).parents[1] / "report" / "node_modules"

WIDE, NARROW = (1280, 900), (360, 740)


@dataclass
class Watched:
    """A page, and what has happened in it.

    Attributes:
        requests: the addresses that it has asked for, without that of the page itself.
        errors: errors and warnings of the console, and exceptions of scripts.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def is_sound(self):
        """Fail if anything was asked for, or if the page has printed an error."""
        __tracebackhide__ = True
        loaded = self.page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)")
        assert (self.requests, loaded, self.errors) == ([], [], [])

    def sideways(self):
        """Return how many pixels the page is wide, and how many are shown."""
        return self.page.evaluate(
            "[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
        )


def started():
    """Yield Chromium; skips without it or without playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install it")
    place = os.environ.get("NLBENCH_TEST_CHROMIUM") or shutil.which("chromium")
    if place is None:
        pytest.skip("needs chromium: apt install chromium, or NLBENCH_TEST_CHROMIUM")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=place, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, address, size=WIDE, **options):
    """Open a file, without a network, and close it at the end.

    Args:
        address: a path, or one with a #fragment behind it.
        options: of playwright's new_context, such as color_scheme and java_script_enabled.
    """
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, offline=True, **options
    )
    page = context.new_page()
    watched = Watched(page)
    own, _, _ = f"file://{address}".partition("#")

    def seen(request):
        if request.url.partition("#")[0] != own:
            watched.requests.append(request.url)

    def said(message):
        if message.type in ("error", "warning"):
            watched.errors.append(message.text)

    page.on("request", seen)
    page.on("websocket", lambda socket: watched.requests.append(socket.url))
    page.on("console", said)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("dialog", lambda dialog: (watched.errors.append(dialog.message), dialog.dismiss()))
    page.goto(f"file://{address}", wait_until="domcontentloaded")
    try:
        yield watched
    finally:
        context.close()


def axe_source():
    """Return the program of axe-core; skips without it."""
    places = [Path(place) for place in (os.environ.get("NLBENCH_TEST_AXE"),) if place]
    places.append(PACKAGES / "axe-core" / "axe.min.js")
    if shutil.which("npm"):
        root = subprocess.run(["npm", "root"], capture_output=True, text=True, check=False)
        places.append(Path(root.stdout.strip()) / "axe-core" / "axe.min.js")
    for place in places:
        if place.is_file():
            return place.read_text()
    pytest.skip("needs axe-core: npm ci --prefix tests/report, or NLBENCH_TEST_AXE=axe.min.js")


def violations(page, program):
    """Return what axe-core finds or cannot decide, as lines of rule, help and element."""
    page.evaluate(program)
    results = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    # Guards against a run that has looked at nothing.
    assert len(results["passes"]) > 5
    # Axe cannot see the background of text in a picture.
    unsure = [found for found in results["incomplete"] if found["id"] != "color-contrast"]
    lines = []
    for found in (*results["violations"], *unsure):
        for node in found["nodes"]:
            lines.append(f"{found['id']}: {found['help']}: {node['html'][:200]}")
    return lines


def made_once(factory, name, make):
    """Return a folder that the first of pytest's workers makes by `make(folder)`."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, ready = root / name, root / f"{name}.ready"
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder
