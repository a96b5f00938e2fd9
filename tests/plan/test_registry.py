"""Methods come from the shipped folder, users' folders and installed packages.

A broken one is named, and does not break the list.
"""

import sys
from importlib.metadata import EntryPoint

import pytest
from sweeps import suite

from nlbench import api, registry
from nlbench.errors import SuiteError

METHOD = '''"""{title}"""
from nlbench.method import Method, Task


class Own(Method):
    def __init__(self, task: Task, q: float = 0.5):
        super().__init__(task)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty folder for methods, where the environment names no other."""
    monkeypatch.delenv("NLBENCH_METHODS", raising=False)
    made = tmp_path / "methods"
    made.mkdir()
    return made


def write(folder, name, text=METHOD):
    """Write a method's file, titled by its name."""
    path = folder / name
    path.write_text(text.replace("{title}", f"Method of {name}."))
    return path


def test_every_shipped_file_is_a_method():
    files = registry.method_files()
    assert {"ce", "elr", "gce"} <= set(files)
    assert list(files) == sorted(files)
    for name, file in files.items():
        assert file.path.stem.replace("_", "-") == name
        assert registry.first_line(file.path)


def test_a_folder_of_ones_own(folder):
    path = write(folder, "my_loss.py")
    write(folder, "_helper.py", "raise RuntimeError('is no method')")
    file = registry.method_files([folder])["my-loss"]

    assert file.path == path

    cls = registry.load_method(file)
    assert cls.__name__ == "Own"
    assert registry.hyperparameters(cls)["q"].default == 0.5
    assert registry.first_line(path) == "Method of my_loss.py."


def test_the_environment_names_folders_too(folder, tmp_path, monkeypatch):
    second = tmp_path / "second"
    second.mkdir()
    write(folder, "one.py")
    write(second, "two.py")
    monkeypatch.setenv("NLBENCH_METHODS", f"{folder}:{second}")

    assert {"one", "two"} <= set(registry.method_files())
    # A folder that is named twice is read once.
    assert {"one", "two"} <= set(registry.method_files([second]))


def test_the_shipped_folder_may_be_named_again(folder):
    shipped = registry.method_files()["ce"].path.parent
    assert set(registry.method_files([shipped])) == set(registry.method_files())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SuiteError, match=r"nowhere: not a folder of method files"):
        registry.method_files([tmp_path / "nowhere"])


def test_two_files_with_one_name_are_both_named(folder):
    path = write(folder, "ce.py")
    with pytest.raises(SuiteError) as caught:
        registry.method_files([folder])
    assert str(path) in str(caught.value)
    assert str(registry.method_files()["ce"].path) in str(caught.value)


def test_underscore_and_hyphen_are_one_name(folder):
    write(folder, "my_loss.py")
    write(folder, "my-loss.py")
    with pytest.raises(SuiteError, match=r"two methods are named 'my-loss'"):
        registry.method_files([folder])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package_anywhere\n", "No module named 'no_such_package_anywhere'"),
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
    ],
)
def test_an_import_error_is_shown_whole_and_breaks_no_list(folder, text, said):
    path = write(folder, "broken_one.py", text)
    files = registry.method_files([folder])

    assert {"broken-one", "ce"} <= set(files)

    registry.first_line(path)
    with pytest.raises(SuiteError) as caught:
        registry.load_method(files["broken-one"])

    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be imported")
    assert said in message
    assert "Traceback" in message
    assert f'"{path}", line ' in message
    # A second import fails as well, and does not find a half-made module.
    with pytest.raises(SuiteError, match=said.split()[0]):
        registry.load_method(files["broken-one"])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x = 1\x00"])
def test_a_file_that_is_no_text_breaks_no_list(folder, content):
    path = folder / "noise_file.py"
    path.write_bytes(content)
    assert "noise-file" in registry.method_files([folder])
    assert registry.first_line(path).startswith("(cannot be read")


def test_more_than_one_class_is_refused_and_named(folder):
    write(folder, "pair.py", METHOD + "\n\nclass Second(Own):\n    pass\n")
    message = r"pair.py: expected exactly one Method subclass, found 2: Own, Second"
    with pytest.raises(SuiteError, match=message):
        registry.load_method(registry.method_files([folder])["pair"])


def test_no_class_is_refused(folder):
    write(folder, "none_at_all.py", "from nlbench.method import Method\n")
    with pytest.raises(SuiteError, match=r"expected exactly one Method subclass, found 0: none"):
        registry.load_method(registry.method_files([folder])["none-at-all"])


def test_private_classes_and_second_names_do_not_count(folder):
    text = (
        METHOD.replace("class Own(Method)", "class _Base(Method):\n    pass\n\n\nclass Own(_Base)")
        + "\n\nAlias = Own\n"
    )
    write(folder, "tidy.py", text)

    assert registry.load_method(registry.method_files([folder])["tidy"]).__name__ == "Own"


@pytest.mark.parametrize(
    "signature", ["q=0.5", "*qs: float", "**options: float", "q: Unknown = 0.5"]
)
def test_hyperparameters_need_a_name_and_an_annotation(folder, signature):
    name = f"sig{abs(hash(signature))}"
    text = "from __future__ import annotations\n" + METHOD.partition("\n")[2].replace(
        "q: float = 0.5", signature
    )
    path = write(folder, f"{name}.py", text)
    cls = registry.load_method(registry.method_files([folder])[name])

    with pytest.raises(SuiteError, match=r"annotation") as caught:
        registry.hyperparameters(cls)
    assert str(path) in str(caught.value)


class TestInstalledPackages:
    """Packages that announce methods under the entry point group nlbench.methods."""

    @pytest.fixture
    def announce(self, tmp_path, monkeypatch):
        package = tmp_path / "site" / "someones_losses"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(package.parent)

        def announce(file, text, name, value):
            (package / file).write_text(text)
            point = EntryPoint(name, value, "nlbench.methods")
            monkeypatch.setattr(
                registry, "entry_points", lambda group: [point] if group == point.group else []
            )
            return package / file

        yield announce
        for module in [m for m in sys.modules if m.startswith("someones_losses")]:
            del sys.modules[module]

    def test_a_module(self, announce):
        path = announce("own.py", METHOD, "their-loss", "someones_losses.own")
        file = registry.method_files()["their-loss"]
        assert file.path == path
        assert registry.load_method(file).__name__ == "Own"

    def test_a_class_of_several(self, announce):
        announce(
            "two.py",
            METHOD + "\n\nclass Second(Own):\n    pass\n",
            "second",
            "someones_losses.two:Second",
        )

        assert registry.load_method(registry.method_files()["second"]).__name__ == "Second"

    @pytest.mark.parametrize("module", ["someones_losses.gone", "no_such_package.own"])
    def test_a_module_that_is_gone_breaks_only_itself(self, announce, module):
        announce("own.py", METHOD, "gone", module)
        files = registry.method_files()

        assert "ce" in files
        assert registry.first_line(files["gone"].path).startswith("(cannot be read")
        with pytest.raises(SuiteError, match=r"cannot be imported\n(.|\n)*No module named"):
            registry.load_method(files["gone"])

    def test_a_taken_name_is_refused_and_both_named(self, announce):
        path = announce("own.py", METHOD, "ce", "someones_losses.own")
        with pytest.raises(SuiteError, match="two methods are named 'ce'") as caught:
            registry.method_files()
        assert str(path) in str(caught.value)


# ---- Helpers of a folder -----------------------------------------------------------------------

SHARING = """
from torch.nn import functional as F
from nlbench.method import Method
from {helper} import scale


class Own(Method):
    def loss(self, logits, batch):
        return scale(F.cross_entropy(logits, batch.labels))
"""


def shared_folder(root, name, factor, helper="._helper"):
    folder = root / name
    folder.mkdir()
    text = f"def scale(x):\n    return {factor} * x\n"
    write(folder, "_helper.py", text)
    write(folder, "helper.py", text)
    write(folder, f"{name}.py", SHARING.format(helper=helper))
    return folder


def test_methods_of_a_folder_share_a_helper_of_their_own(tmp_path):
    one, two = shared_folder(tmp_path, "one", 2), shared_folder(tmp_path, "two", 3, ".helper")
    files = registry.method_files([one, two])
    assert "helper" not in files
    factors = []
    for name in ("one", "two"):
        module = sys.modules[registry.load_method(files[name]).__module__]
        factors.append(module.scale(1))
    assert factors == [2, 3]


def test_a_helper_without_the_dot_is_told_how_to_be_imported(tmp_path):
    folder = shared_folder(tmp_path, "three", 2, "helper")
    with pytest.raises(registry.NotImportable) as caught:
        registry.load_method(registry.method_files([folder])["three"])
    assert "helper.py lies beside it: write `from .helper import ...`" in str(caught.value)
    assert caught.value.in_short.startswith(f"{folder}/three.py:4: cannot be imported: Module")
    assert "with the dot" in caught.value.in_short


def test_a_file_of_helpers_is_no_method_and_a_row_of_its_name_says_so(tmp_path):
    folder = shared_folder(tmp_path, "four", 2)
    (folder / "soft_margin.py").write_text((folder / "four.py").read_text())
    rows = {"helper": {}, "gone": {}, "gcee": {}, "soft_margin": {}}
    with pytest.raises(SuiteError) as caught:
        api.prepare(suite(rows), out=tmp_path / "out", methods_dir=folder)
    message = str(caught.value)
    assert "helper.py holds no class, so it is no method" in message
    # What both unknown rows have in common is said once.
    assert message.count("The methods are: ") == message.count("--methods-dir FOLDER") == 1
    assert "unknown method 'gcee'. Did you mean 'gce'?" in message
    # The method of soft_margin.py has a dash in its name.
    assert "unknown method 'soft_margin'. Did you mean 'soft-margin'?" in message
