"""`nlbench report`: everything that a store says, as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nlbench import registry
from nlbench.report import citation, markup, suite
from nlbench.report.runs import Runs
from nlbench.report.state import MOST_LISTED
from nlbench.results import notes

if TYPE_CHECKING:
    from nlbench.report.suite import SuitePage
    from nlbench.results.store import Store


def render(
    store: Store,
    suite_name: str | None = None,
    methods: Mapping[str, registry.MethodFile] | None = None,
) -> str:
    """Return the page of one suite of a store, or of all of them where `suite_name` is None.

    Args:
        methods: the files that records are compared with, to mark stale ones; by default those that
            are shipped and installed.

    Raises: StoreError for a store without results, SuiteError for an unknown suite.
    """
    if methods is None:
        methods = registry.method_files()
    runs = Runs(store)
    pages = []
    for plan in plans_of(store, suite_name).values():
        pages.append(suite.of_plan(plan, store, methods, runs))

    environment = markup.environment()
    script = _text("script.js")
    return environment.get_template("page.html").render(
        title=_title(pages),
        lede=_lede(pages),
        version=version(),
        style=_inlined(_text("style.css")),
        script=_inlined(script),
        script_digest=markup.digest(script),
        suites=pages,
        datasets=_all(group.dataset for page in pages for group in page.board.groups),
        noises=_all(group.noise for page in pages for group in page.board.groups),
        rows=_all(row for page in pages for row in page.rows),
        choices=_choices(pages),
        citation=citation.of_nlbench(),
        papers=citation.of_methods([m for page in pages for m in page.methods], methods),
        most_listed=MOST_LISTED,
        embedded={"suites": [page.data() for page in pages], **runs.data()},
    )


def plans_of(store: Store, suite_name: str | None) -> dict[str, dict[str, Any]]:
    """Return the plan of one suite, or of all that a reader wants to see, by name.

    The tries of tuned suites are left out, unless they are named or nothing else is there.

    Raises: StoreError for a store without results or a damaged plan, SuiteError for a suite that is
        unknown.
    """
    if suite_name is not None:
        return {suite_name: store.plan_of(suite_name)}
    plans = store.plans()
    return {name: plan for name, plan in plans.items() if not plan["tries"]} or plans


def version() -> str:
    """Return the version of nlbench."""
    try:
        return installed("nlbench")
    # The sources can be used without an installation.
    except PackageNotFoundError:
        return "unknown"


def _title(pages: Sequence[SuitePage]) -> str:
    return pages[0].name if len(pages) == 1 else f"Results of {len(pages)} suites"


def _lede(pages: Sequence[SuitePage]) -> str:
    """Return the sentence below the title, which counts what the page shows."""
    runs = sum(page.state.runs for page in pages)
    done = sum(page.state.done for page in pages)
    rows = len(_all(row for page in pages for row in page.rows))
    conditions = len(_all(group.title for page in pages for group in page.board.groups))
    parts = [
        _count(rows, "method"),
        f"{_count(conditions, 'combination')} of dataset and noise",
        f"{done:,} of {_count(runs, 'run')} done",
    ]
    return ", ".join(parts) + "."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _choices(pages: Sequence[SuitePage]) -> list[tuple[str, list[str]]]:
    """Return the choices of columns of all leaderboards, each once."""
    choices: dict[str, list[str]] = {}
    for page in pages:
        for heading, names in page.board.choices:
            choices[heading] = notes.once([*choices.get(heading, []), *names])
    # Another suite may have further metrics, and all columns come last.
    everything = choices.pop("all columns", [])
    return [*choices.items(), ("all columns", everything)]


def _all(texts: Any) -> list[str]:
    return notes.once(texts)


def _text(name: str) -> str:
    return files("nlbench.report").joinpath("templates", name).read_text(encoding="utf-8")


def _inlined(text: str) -> Any:
    """Return our own CSS or JavaScript, which must not be escaped."""
    from markupsafe import Markup

    return Markup(text)
