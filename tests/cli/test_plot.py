"""`nlbench plot`: files, and the messages for what cannot be drawn."""

import pytest
from made_figures import write_results

from nlbench.figures import KINDS

CONDITIONS = [
    ("Digits symmetric 0.2", "digits", 0.2),
    ("Digits symmetric 0.4", "digits", 0.4),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_results(folder, rows=("ce", "elr"), conditions=CONDITIONS, seeds=(0, 1))
    return folder


@pytest.mark.parametrize(
    ("ending", "first"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")]
)
def test_a_file_is_written_and_its_figure_explained(cli, out, tmp_path, ending, first):
    path = tmp_path / f"figure{ending}"
    result = cli("plot", "epochs", out, "--to", path)
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(first)
    assert "Digits symmetric 0.2, 85 x " in result.stdout
    assert "Bands: lowest and highest seed" in result.stdout
    assert "Other conditions, for --condition: Digits symmetric 0.4." in result.stdout


def test_a_folder_that_is_not_there_is_made(cli, place, out):
    cli("plot", "epochs", out, "--to", "new/figures/e.png")
    assert (place / "new/figures/e.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_is_a_png_of_the_kinds_name(cli, place, out):
    assert cli("plot", "cost", out, "--condition", "0.4", "--cost", "passes").exit_code == 0
    assert (place / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_options_reach_the_figure(cli, out, tmp_path):
    path = tmp_path / "f.svg"
    options = ("--only", "elr", "--metric", "loss", "--width", "12cm", "--to", path)
    result = cli("plot", "epochs", out, *options)
    assert "120 x" in result.stdout
    text = path.read_text()
    assert "training loss" in text
    assert ">elr<" in text
    assert ">ce<" not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("epoch",), "unknown kind 'epoch'. There are: epochs, memorisation"),
        (("epochs", "--to", "x.jpg"), "--to x.jpg: the name must end in .png, .svg, .pdf"),
        (("epochs", "--to", "/dev/null/x.png"), "--to /dev/null/x.png: cannot be written"),
        (("epochs", "--width", "85"), "--width '85': write column, wide, or a length"),
        (("epochs", "--width", "2cm"), "--width 2cm: must be from 75mm to 600mm"),
        (("epochs", "--suite", "t"), "unknown suite"),
        (("epochs", "--condition", "asym"), "--condition 'asym': "),
        (("epochs", "--condition", "digits"), "--condition 'digits' fits several"),
        (
            ("epochs", "--condition", "0.2", "--condition", "0.4"),
            "--condition: epochs shows one condition; give one",
        ),
        (("epochs", "--suite-b", "s"), "--suite-b: epochs shows one suite; leave it out"),
        (("agreement", "--suite-b", "t"), "unknown suite"),
        (
            ("agreement", *("--condition", "0.2") * 3),
            "--condition: agreement compares two conditions; got it 3 times",
        ),
        (("epochs", "--only", "elx"), "--only elx: no such row"),
        (("cost", "--metric", "lost"), "--metric lost: unknown. There are: last,"),
        (("ranks",), "each dataset once"),
        (("gradient",), "--record-gradients"),
        (("transition",), "8 without T in predictions.npz"),
    ],
)
def test_what_cannot_be_drawn_ends_in_a_message(refused, place, out, options, words):
    kind, *others = options
    before = sorted(place.iterdir())
    message = refused("plot", kind, out, *others)
    assert words in message.replace("\n  ", " ")
    assert "Traceback" not in message
    assert sorted(place.iterdir()) == before


def test_two_suites_of_a_folder_are_compared(cli, tmp_path):
    for suite in ("a", "b"):
        write_results(tmp_path / "store", rows=("ce", "elr"), seeds=(0, 1), suite=suite)
    options = ("--suite", "a", "--suite-b", "b", "--to", tmp_path / "f.svg")
    result = cli("plot", "agreement", tmp_path / "store", *options)

    assert "Digits symmetric 0.4 (a) and Digits symmetric 0.4 (b), 85 x" in result.stdout


def test_two_conditions_are_compared_in_the_order_given(cli, out, tmp_path):
    options = ("--condition", "0.4", "--condition", "0.2", "--to", tmp_path / "f.svg")
    result = cli("plot", "agreement", out, *options)

    assert "Digits symmetric 0.4 and Digits symmetric 0.2, 85 x" in result.stdout


def test_several_suites_need_a_name(cli, tmp_path):
    for suite in ("a", "b"):
        write_results(tmp_path / "store", rows=("ce",), seeds=(0,), suite=suite)
    result = cli("plot", "epochs", tmp_path / "store")
    assert result.exit_code == 2
    assert "holds several suites; --suite chooses: a, b" in result.stderr


def test_the_help_names_every_kind(cli):
    text = " ".join(cli("plot", "--help").stdout.split())
    for kind in KINDS.values():
        assert f"{kind.name}: {kind.help}" in text
