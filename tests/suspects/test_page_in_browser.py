"""The page of suspects in Chromium: no request, no error, phones, and no violation of axe's."""

import chromium
import pytest
from made_suspects import HOSTILE, arrays_of, made_store, memory

from nlbench.results.cells import Results
from nlbench.suspects import labelling, page, ranking

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    arrays = arrays_of(range(8))
    for i, name in enumerate(HOSTILE):
        arrays["names"] = arrays["names"].astype("U80")
        arrays["names"][i] = name * 2
    store = made_store(place / "store", {("ce", 0): arrays})
    plan = labelling.choose_plan(store, None)
    parts = labelling.read(Results(plan, store, {}), store, plan).labellings
    ranked = [ranking.rank(part, ["ce"], None) for part in parts]
    (place / "page.html").write_text(page.render(ranked, 8, lambda _: memory()))
    return place / "page.html"


@pytest.mark.parametrize("size", [chromium.WIDE, chromium.NARROW])
def test_the_page_fits_and_asks_for_nothing(browser, written, size):
    with chromium.opened(browser, written, size) as watched:
        shown, there = watched.sideways()

        assert shown <= there
        assert watched.page.locator("tbody tr").count() == 8
        # Pictures are in the page itself, where each counts as a request.
        assert [url for url in watched.requests if not url.startswith("data:image/png")] == []
        assert watched.errors == []
        # Those below are not decoded before they are seen.
        widths = watched.page.evaluate(
            """Promise.all([...document.images].map(async (image) => {
                image.loading = "eager"; await image.decode(); return image.naturalWidth; }))"""
        )
        assert widths == [4] * 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [chromium.WIDE, chromium.NARROW])
def test_axe_finds_no_violation(browser, written, size, scheme):
    program = chromium.axe_source()
    # The page forbids scripts, and axe is one.
    options = {"color_scheme": scheme, "bypass_csp": True}
    with chromium.opened(browser, written, size, **options) as watched:
        assert chromium.violations(watched.page, program) == []
