"""Which changes of the code make records stale: those that can change a number, and no others."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from nlbench import code_hash, registry
from nlbench.data import catalogue
from nlbench.data.noise.kinds import KINDS

PACKAGE = Path(code_hash.__file__).parent
METHODS = registry.method_files()

SOURCE = '''"""What a method file says first."""
import torch
from nlbench.method import Method


class Mine(Method):
    """Weighs the loss."""

    def loss(self, logits, batch):
        weight = 0.5
        if logits.shape[0] > 1:
            weight = weight * 2
            self.seen = True
        return weight * torch.nn.functional.cross_entropy(logits, batch.labels)
'''


@pytest.fixture
def changed(tmp_path):
    """Write SOURCE with one text in place of another, and return its hash as a method file."""
    path = tmp_path / "mine.py"

    def write(old="", new=""):
        assert old in SOURCE
        path.write_text(SOURCE.replace(old, new, 1) if old else SOURCE)
        # All sources have the same path here, by which hashes are remembered.
        code_hash.file_hash.cache_clear()
        return code_hash.code_hash(path, "digits_cnn", "digits")

    write.path = path
    return write


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("weight = 0.5\n", "weight = 0.5  # half of it\n"),
        ("        weight = 0.5\n", "        # Half of it.\n        weight = 0.5\n"),
        ("        weight = 0.5\n", "    # At another indentation.\n        weight = 0.5\n"),
        ('"""Weighs the loss."""', '"""Weighs the loss.\n\n    With a reason.\n    """'),
        ('    """Weighs the loss."""\n', ""),
        ('"""What a method file says first."""\n', ""),
        ("        weight = 0.5\n", "\n\n        weight = 0.5\n\n"),
        ("entropy(logits, batch.labels)", "entropy(\n            logits, batch.labels\n        )"),
        ("weight = weight * 2", "weight = \\\n                weight * 2"),
        ("weight = weight * 2\n            self", "weight = weight  *  2\n            self"),
        (
            "            weight = weight * 2\n            self",
            "          weight = weight * 2\n          self",
        ),
        ("batch.labels)\n", "batch.labels)"),
    ],
    ids=[
        "a trailing comment",
        "a comment line",
        "a comment line at another indentation",
        "the words of a docstring",
        "no docstring of the class",
        "no docstring of the module",
        "blank lines",
        "a wrapped call",
        "a wrapped assignment",
        "spaces within a line",
        "a narrower indentation",
        "no line break at the end",
    ],
)
def test_words_and_layout_keep_the_hash(changed, old, new):
    assert changed(old, new) == changed()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.6"),
        ("weight * 2", "weight + 2"),
        ("weight * 2\n            self.seen", "weight * 2\n        self.seen"),
        (
            "batch.labels)\n",
            "batch.labels)\n\n    def predict(self, run, images):\n        return images\n",
        ),
        ("self.seen", "self.saw"),
        ("            self.seen = True\n", ""),
        ('"""Weighs the loss."""', 'text = """Weighs the loss."""'),
        ('"""Weighs the loss."""', 'f"""{print()}"""'),
    ],
    ids=[
        "a number",
        "an operator",
        "a statement that leaves an if",
        "a further function",
        "a name",
        "a missing statement",
        "a string that is used",
        "a string that calls something",
    ],
)
def test_another_program_has_another_hash(changed, old, new):
    assert changed(old, new) != changed()


def test_a_change_that_moves_no_number_can_be_declared(changed, monkeypatch):
    before, after = changed(), changed("weight * 2", "2 * weight")
    path = changed.path
    hash_after = code_hash.tokens_hash(path)
    changed()
    monkeypatch.setitem(code_hash.UNMOVED, hash_after, code_hash.tokens_hash(path))

    assert after != before == changed("weight * 2", "2 * weight")
    # It holds for this change alone.
    assert changed("weight * 2", "3 * weight") != before


def test_what_was_declared_to_move_no_number_is_the_code_of_today():
    # A line for code that has changed since would say nothing, and hide that it does.
    today = {code_hash.tokens_hash(path) for path in PACKAGE.rglob("*.py")}
    assert set(code_hash.UNMOVED) <= today
    assert not set(code_hash.UNMOVED.values()) & set(code_hash.UNMOVED)


def test_every_python_hashes_an_f_string_alike(tmp_path):
    """From 3.12 on an f-string is several tokens, and some of them lose parts of the source."""
    path = tmp_path / "strings.py"
    path.write_text('x = f\'a {{b}} { 1 + 1 !r:>{width}} c\' + rf"""{x:\n}"""\n')

    expected = ("x", "=", "f'a {{b}} { 1 + 1 !r:>{width}} c'", "+", 'rf"""{x:\n}"""', "NEWLINE")
    assert code_hash.code_tokens(path) == expected


# ---- Which files count ------------------------------------------------------------------------


def files_of(method, model="digits_cnn", dataset="digits", noise=""):
    """Return the files that the hash of a run covers, relative to the package.

    The method's file may lie outside of it, and is left out.
    """
    own = METHODS[method].path
    found = set()
    for path in code_hash.hashed_files(own, model, dataset, noise):
        if path != own:
            found.add(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "mixmatch",
            {
                "disc",
                "dividemix",
                "elr-plus",
                "incv",
                "m-dyr",
                "mentornet",
                "pes",
                "pls",
                "promix",
                "ssr",
                "unicon",
            },
        ),
        ("disc", {"disc"}),
        ("pes", {"pes"}),
        ("gaussian_mixture", {"dividemix", "pls"}),
        ("averages", {"elr-plus", "ema"}),
        ("transition", {"forward", "backward", "t-revision"}),
        ("over_parameterisation", {"sop", "sop-plus"}),
        ("elr", set(METHODS)),
        ("reference", set(METHODS)),
    ],
)
def test_a_module_of_ops_counts_for_the_methods_that_import_it(module, expected):
    found = {name for name in METHODS if f"ops/{module}.py" in files_of(name)}
    assert found == expected


@pytest.mark.parametrize(
    "line",
    [
        "from nlbench.ops import mixmatch",
        "from nlbench.ops.mixmatch import sharpen",
        "import nlbench.ops.mixmatch",
        "from nlbench import ops\nX = ops.mixmatch",
        "def late():\n    from nlbench.ops import mixmatch",
    ],
)
def test_every_way_of_importing_a_module_of_ops_is_seen(tmp_path, line):
    path = tmp_path / "mine.py"
    path.write_text(f"{line}\n")
    assert PACKAGE / "ops" / "mixmatch.py" in code_hash.hashed_files(path, "digits_cnn", "digits")


def test_a_helper_network_that_methods_share_has_none_of_their_code():
    # The same helper network serves forward and backward, so neither's code belongs to its hash.
    files = code_hash.hashed_files(None, "digits_cnn", "digits")
    assert not {path.name for path in files} & {"forward.py", "backward.py", "transition.py"}


def test_a_run_has_its_own_model_and_its_own_drawn_dataset():
    assert "models/cnn.py" in files_of("ce")
    assert "models/cnn.py" not in files_of("ce", model="resnet34")
    assert "models/_external.py" in files_of("ce", model="torchvision/resnet50")
    assert "models/_external.py" not in files_of("ce")

    drawn = {"data/datasets/digits.py", "data/datasets/gaussians.py"}
    assert files_of("ce") & drawn == {"data/datasets/digits.py"}
    assert files_of("ce", dataset="gaussians") & drawn == {"data/datasets/gaussians.py"}
    for name in catalogue.dataset_files():
        expected = catalogue.dataset(name).INFO.redrawn
        assert (f"data/datasets/{name}.py" in files_of("ce", dataset=name)) == expected
    assert "data/datasets/folder.py" not in files_of("ce", dataset="folder:birds")


def test_a_kind_of_noise_with_its_own_file_counts_for_the_runs_that_draw_it():
    folder = PACKAGE / "data" / "noise" / "more"
    own = {f"data/noise/more/{path.name}" for path in folder.glob("[!_]*.py")}
    shared = {f"data/noise/more/{path.name}" for path in folder.glob("_[!_]*.py")}
    assert {"data/noise/more/soft_labels.py", "data/noise/more/vote.py"} <= own
    assert not (own | shared) & files_of("ce")

    for kind in KINDS:
        file = f"data/noise/more/{kind.replace('-', '_')}.py"
        expected = {file, *shared} if file in own else set()
        assert (own | shared) & files_of("ce", noise=kind) == expected
        # It registers the kind that it is called after.
        module = KINDS[kind].draw.__module__.replace(".", "/").removeprefix("nlbench/") + ".py"
        assert module == (file if file in own else "data/noise/kinds.py")
    assert len(own) == sum(f"data/noise/more/{k.replace('-', '_')}.py" in own for k in KINDS)


def test_all_kinds_of_noise_in_kinds_have_one_hash():
    path = METHODS["ce"].path
    plain = code_hash.code_hash(path, "digits_cnn", "digits", "symmetric")
    for kind in ("pair-flip", "file", "no such kind", "_rows"):
        assert code_hash.code_hash(path, "digits_cnn", "digits", kind) == plain
    assert code_hash.code_hash(path, "digits_cnn", "digits", "soft-labels") != plain


def test_noise_counts_for_the_runs_that_draw_it_alone():
    # Human labels are a part of the dataset's fingerprint.
    drawing = files_of("ce", noise="symmetric") - files_of("ce")

    assert {"data/noise/kinds.py", "data/noise/resolve.py", "data/noise/label_files.py"} <= drawing
    assert all(name.startswith(("data/noise/", "data/formats/")) for name in drawing)
    # The noise rate of a record is measured, and a matrix may be given without drawing noise.
    assert {"data/noise/measure.py", "data/noise/matrix_files.py"} <= files_of("ce")


# Files that training imports, but whose code cannot change a number, and the reason.
BOOKKEEPING = {
    "code_hash.py": "names the code",
    "contract/advice.py": "makes messages",
    "contract/hooks.py": "refuses classes of methods",
    "data/base.py": "holds a dataset that was read, whose fingerprint is in the key",
    "data/catalogue.py": "finds datasets",
    "data/changes.py": "refuses files that were changed",
    "data/describe.py": "counts classes for messages",
    "data/formats/bounds.py": "refuses files that grow too large",
    "data/formats/class_folders.py": "lists pictures, whose names and labels are in the key",
    "data/formats/recognise.py": "makes messages about files of a wrong kind",
    "data/formats/safe_pickle.py": "reads files, whose content is in the key",
    "data/imbalance.py": "counts for datasets with an imbalance, see tests/data/test_imbalance.py",
    "data/missing.py": "makes messages about missing files",
    "data/places.py": "names folders of datasets",
    "data/verify.py": "refuses datasets that are not what they promise",
    "errors.py": "makes messages",
    "files.py": "writes files",
    "hardware.py": "asks the machine; its answers are in the key or in the record",
    "plan/conditions.py": "makes fingerprints, which are in the key",
    "plan/memories.py": "estimates memory",
    "plan/options.py": "reads options of the command line",
    "plan/presets.py": "holds values, which are in the key",
    "plan/problems.py": "makes messages",
    "plan/protocol.py": "holds values, which are in the key",
    "plan/shards.py": "divides runs, which does not change them",
    "plan/spec.py": "makes run keys, which hold all values",
    "plan/suite_file.py": "reads suites, whose values are in the key",
    "plan/told.py": "reads values, which are in the key",
    "plan/yaml_lines.py": "reads suites, whose values are in the key",
    "process_state.py": "puts back what a method changes in its process",
    "registry.py": "finds files",
    "results/holder.py": "keeps processes apart",
    "results/integrity.py": "checks files that were written",
    "results/lock.py": "keeps processes apart",
    "results/metrics.py": "names metrics",
    "results/parallel.py": "reads records",
    "results/place.py": "names the folder of the store",
    "results/plan_file.py": "checks plans",
    "results/record.py": "holds numbers that training computes",
    "results/reproduced.py": "notes what was compared",
    "results/schema.py": "reads records of other versions",
    "results/state_files.py": "checks files that were written",
    "results/store.py": "stores records",
}


def test_every_module_that_training_imports_counts_or_is_bookkeeping():
    counted = files_of("ce", noise="symmetric")
    imported, waiting = set(), ["training/train.py", "training/run_data.py"]
    while waiting:
        file = waiting.pop()
        if file not in imported:
            imported.add(file)
            waiting += imports(file)

    assert len(imported) > 25
    # An entry that nothing imports would excuse a file that starts to compute numbers later.
    assert set(BOOKKEEPING) <= imported
    # Files of models and ops count for the runs that use them; tests above see to that.
    elsewhere = ("models/", "ops/", *BOOKKEEPING)
    missing = set()
    for file in imported - counted:
        # An empty __init__.py computes nothing.
        if not file.startswith(elsewhere) and code_hash.code_tokens(PACKAGE / file):
            missing.add(file)
    assert missing == set()


def imports(file):
    """Return the package's files that a file imports.

    The test reads them from the source by itself, independently of the code under test.
    """
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nlbench":
            names.add(node.module)
            for alias in node.names:
                names.add(f"{node.module}.{alias.name}")

    found = set()
    for name in names - {"nlbench"}:
        path = name.removeprefix("nlbench.").replace(".", "/")
        found |= {f"{path}.py", f"{path}/__init__.py"}
    return {path for path in found if (PACKAGE / path).is_file()}


def test_every_file_of_the_numeric_folders_counts():
    # The kinds in `more/` count where they are drawn.
    for folder in ("training", "data/noise"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert str(path.relative_to(PACKAGE)) in files_of("ce", noise="symmetric")

    for pattern in (*code_hash.HARNESS, *code_hash.OF_NOISE):
        assert list(PACKAGE.glob(pattern)), f"{pattern} matches no file"


def test_the_hash_needs_no_torch(tmp_path):
    # Tables compare hashes to mark stale records, and have to be printed at once.
    code = (
        "import sys; from nlbench.code_hash import hashed_files\n"
        "assert hashed_files(None, 'digits_cnn', 'digits')\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    # Elsewhere than in the project's folder, whose sources would be imported and not the package.
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "from ._helper import scale",
        "from . import _helper",
        "from ._folder.inner import scale",
        "from ._first import scale",
        "import _helper",
    ],
)
def test_a_helper_beside_a_method_counts_for_it(tmp_path, line):
    (tmp_path / "_folder").mkdir()
    helpers = [tmp_path / "_helper.py", tmp_path / "_folder" / "inner.py"]
    (tmp_path / "_first.py").write_text("from ._helper import scale\n")
    (tmp_path / "mine.py").write_text(f"{line}\n{SOURCE}")

    def hash_with(factor):
        for helper in helpers:
            helper.write_text(f"scale = {factor}\n")
        code_hash.file_hash.cache_clear()
        return code_hash.code_hash(tmp_path / "mine.py", "digits_cnn", "digits")

    assert hash_with(1) == hash_with(1) != hash_with(2)


def test_shipped_methods_have_no_helper_beside_them():
    for file in METHODS.values():
        files = code_hash.hashed_files(file.path, "digits_cnn", "digits")
        assert [path for path in files if path.parent == file.path.parent] == [file.path]


def test_a_process_remembers_the_hashes_of_those_files_that_it_has_imported(tmp_path):
    code = """
import nlbench.data.stratified
from nlbench import code_hash, registry

def hashed():
    return code_hash.code_hash(registry.method_files()["elr"].path, "digits_cnn", "digits")

read = []
tokens_of = code_hash.code_tokens
code_hash.code_tokens = lambda path: read.append(str(path)) or tokens_of(path)
code_hash.remember_loaded()
print([path.rpartition("/")[2] for path in read])
remembered = hashed()
print(len(read), len(set(read)))
code_hash.file_hash.cache_clear()
code_hash._imported_names.cache_clear()
print(remembered == hashed())
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    first, counts, same = done.stdout.splitlines()
    # Method files and what runs import by themselves are read when they are trained.
    assert first == "['stratified.py']"
    count, different = map(int, counts.split())
    assert count == different > 50
    assert same == "True"
