"""Tables as HTML: what they hold, and that no text of them becomes a tag."""

import html.parser

import pytest

from nlbench.results import formats

HOSTILE = [
    "<script>alert(1)</script>",
    "</table><img src=x onerror=alert(1)>",
    "a|b",
    "$x$ _y_ &amp; % # ~ ^ \\ {z}",
    "\" onmouseover='x'",
    "<!-- ",
    "-->",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}",
    "x" * 500,
]


class Reader(html.parser.HTMLParser):
    """Reads what a browser would show: the text of each element, and its attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        pass

    def handle_data(self, data):
        if self.found:
            tag, attrs, text = self.found[-1]
            self.found[-1] = (tag, attrs, text + data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def texts(reader, *tags):
    return [text.rstrip("\n ") for tag, _, text in reader.found if tag in tags]


def test_a_table_has_a_caption_scopes_and_numbers_on_the_right():
    text = formats.html("title", ["method", "last"], [["ce", "1.00±0.50"]], ["a note"])
    page = read(text)

    assert page.tags.count("table") == 1
    assert texts(page, "caption") == ["title"]
    headings = [attrs for tag, attrs, _ in page.found if tag == "th"]
    assert [attrs["scope"] for attrs in headings] == ["col", "col", "row"]
    (number,) = [attrs for tag, attrs, _ in page.found if tag == "td"]
    assert "text-align: right" in number["style"]
    assert texts(page, "td", "li") == ["1.00±0.50", "a note"]
    # Nothing outside of the table can be changed by it.
    assert not {"style", "script", "link"} & set(page.tags)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_text_wherever_it_stands(name):
    text = formats.html(
        name, [name, name], [[name, name]], [name], bold={(0, 1)}, groups=[(name, 2)]
    )
    page = read(text)

    plain = read(
        formats.html("t", ["a", "b"], [["c", "d"]], ["e"], bold={(0, 1)}, groups=[("g", 2)])
    )
    assert page.tags == plain.tags
    shown = texts(page, "caption", "th", "strong", "li")
    assert shown == [name.rstrip()] * 7


def test_the_text_is_ascii_without_control_characters():
    text = formats.html("a\x1b[2J\u202eb\x00", ["m", "±"], [["\u200fn\r\n", "1"]])
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert "a [2J b" in text


def test_bold_cells_are_strong_and_groups_span_their_columns():
    lines = [["ce", "1", "2"], ["elr", "3", "4"]]
    text = formats.html("t", ["m", "a", "b"], lines, bold={(1, 2)}, groups=[("", 1), ("G", 2)])
    page = read(text)

    assert texts(page, "strong") == ["4"]
    spans = [attrs for tag, attrs, text in page.found if text.strip() == "G"]
    assert spans[0]["colspan"] == "2"
    assert spans[0]["scope"] == "colgroup"
    assert [a["span"] for tag, a, _ in page.found if tag == "colgroup"] == ["1", "2"]


def test_the_style_may_be_left_to_the_page():
    text = formats.html("t", ["m", "a"], [["ce", "1"]], inline_styles=False)
    assert "style" not in text
    assert "<ul>" not in text


def test_a_wide_table_scrolls_and_not_its_page():
    page = read(formats.html('t "x"', ["m", "a"], [["ce", "1"]]))
    (region,) = [attrs for tag, attrs, _ in page.found if tag == "div"]
    assert region["style"] == "overflow-x: auto"
    assert (region["role"], region["aria-label"], region["tabindex"]) == ("region", 't "x"', "0")


def test_commands_in_notes_are_code():
    text = formats.html("t", ["m"], [["a"]], ["`nlbench run --stale rerun` trains <it>"])
    assert "<li><code>nlbench run --stale rerun</code> trains &lt;it&gt;</li>" in text
