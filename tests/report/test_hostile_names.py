"""Names and messages that look like markup, in every format: they stay text."""

import csv
import io
import json

import pytest
from chromium import opened
from made_up import plan_of, write_run

from nlbench import registry
from nlbench.errors import printable
from nlbench.figures import KINDS, Options, svg
from nlbench.report import page
from nlbench.report.publication import publish
from nlbench.results import table
from nlbench.results.cells import Results
from nlbench.results.store import Store

NAMES = (
    "<script>alert(1)</script>",
    "</script></svg></table><img src=x onerror=alert(2)>",
    "a|b $x_y$ &amp; ]]> `c` *d* [e](javascript:alert(3))",
    "\x1b[31mred\x07 \u202egnirts\u2066 \x00end",
    "\" onmouseover='alert(4)' --> {{ 7 * 7 }} {% raw %}",
)
# What a page shows of them: what steers a terminal or reorders text is written out.
SHOWN = tuple(map(printable, NAMES))


@pytest.fixture
def store(tmp_path):
    """A store whose rows, methods, conditions, classes and messages have such names."""
    made, keys = Store(tmp_path / "results"), {}
    made.require_writable()
    for place, name in enumerate(NAMES):
        for seed in (0, 1):
            parts = {
                "metrics": {"last": 0.5 + 0.1 * place + 0.01 * seed, "best": 0.95},
                "classes": {"num_classes": 2, "names": [name, NAMES[0]], "recall": [0.5, 1.0]},
                "warnings": [f"warned of {name}"],
            }
            if place == 4 and seed == 1:
                error = {"message": f"ValueError: {name}", "traceback": name}
                parts = {"status": "failed", "metrics": {}, "error": error}
            keys[name, seed] = write_run(made, name, seed, **parts)
    plan = plan_of(keys, rows=NAMES, seeds=(0, 1), conditions=[NAMES[0]], notes=[NAMES[1]])
    made.write_plan({**plan, "command": f"nlbench run {NAMES[1]!r}"})
    return made


@pytest.mark.parametrize("fmt", ["md", "csv", "latex", "html", "json"])
def test_a_table_has_no_control_characters_and_a_line_for_each_row(store, fmt):
    text = table.render_suites(store, None, methods=registry.method_files(), fmt=fmt)
    # CSV and JSON quote a text and keep it, for programs.
    if fmt != "csv":
        assert text == printable(text)
    if fmt == "csv":
        rows = {line["row"] for line in csv.DictReader(io.StringIO(text))}
        assert len(rows) == len(NAMES)
    if fmt == "json":
        # NaN and Infinity would be no JSON.
        assert json.loads(text, parse_constant=pytest.fail)
    if fmt == "html":
        assert "<script" not in text
        assert "<img" not in text


def _figures(store):
    """Return the figures that this store has, as SVG."""
    results = Results(store.plan("s"), store, registry.method_files())
    options = Options(against=NAMES[0])
    return {name: svg(KINDS[name].draw(results, options)) for name in ("epochs", "differences")}


@pytest.mark.story
def test_a_browser_shows_names_as_text_and_runs_nothing(store, tmp_path, browser):
    publish(store, tmp_path / "site")
    texts = {
        "report": page.render(store),
        "table": table.render_suites(store, None, methods=registry.method_files(), fmt="html"),
        **_figures(store),
    }
    pages = [tmp_path / "site" / "index.html"]
    for name, text in texts.items():
        pages.append(tmp_path / f"{name}.html")
        head = "" if name == "report" else "<!doctype html><meta charset=utf-8><title>x</title>"
        pages[-1].write_text(head + text, encoding="utf-8")

    for path in pages:
        with opened(browser, path) as watched:
            watched.page.wait_for_load_state("load")
            # An alert would be an error, and an image a request.
            watched.is_sound()
            assert watched.page.locator("img, [onmouseover], [onerror]").count() == 0
            assert watched.page.locator('a[href^="javascript:"]').count() == 0
            text = watched.page.evaluate("document.documentElement.textContent")
            assert "alert(1)" in text or path.stem in ("epochs", "differences")
            assert text == printable(text)
            if path.stem in ("report", "index"):
                for name in SHOWN:
                    assert watched.page.get_by_role("rowheader", name=name, exact=True).count()
                _open_every_cell(watched.page)
                watched.is_sound()


def _open_every_cell(page):
    """Open the dialog of each row, whose script makes elements of names."""
    for link in page.locator('.board td[data-c="last"] a').all():
        link.click()
        dialog = page.get_by_role("dialog")
        title = dialog.get_by_role("heading").first.inner_text()
        assert any(title.startswith(name[:20]) for name in SHOWN), title
        assert dialog.locator("img, script").count() == 0
        page.keyboard.press("Escape")
