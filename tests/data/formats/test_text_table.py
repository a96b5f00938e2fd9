"""Tables as people's programs write them; what is none is named with file and line."""

import gzip
import zipfile

import pytest

from nlbench.data.formats.text_table import read_table
from nlbench.errors import DataError

ROWS = [["a.jpg", "cat"], ["b, c.jpg", "dog"]]


@pytest.mark.parametrize(
    "content",
    [
        b'path,label\na.jpg,cat\n"b, c.jpg",dog\n',
        b'path,label\r\na.jpg,cat\r\n"b, c.jpg",dog\r\n\r\n',
        b'path,label\ra.jpg,cat\r"b, c.jpg",dog\r',
        b"path;label\na.jpg; cat\nb, c.jpg;dog\n;\n;\n",
        b"path\tlabel\na.jpg\tcat\n\nb, c.jpg\tdog",
        b"path|label\na.jpg|cat\nb, c.jpg|dog",
        b'\xef\xbb\xbf"path","label"\n"a.jpg","cat"\n"b, c.jpg","dog"\n',
        "path;label\na.jpg;cat\nb, c.jpg;dog\n".encode("utf-16"),
        b"\xfe\xff" + "path;label\na.jpg;cat\nb, c.jpg;dog\n".encode("utf-16-be"),
    ],
)
def test_separators_encodings_and_ends_of_lines(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    table = read_table(tmp_path / "x.csv")
    assert table.names == ("path", "label")
    assert table.rows == ROWS
    assert table.column("label") == ["cat", "dog"]


def test_an_empty_line_among_single_cells_is_an_empty_cell(tmp_path):
    (tmp_path / "x.csv").write_text("label\n1\n\n2\n\n")
    table = read_table(tmp_path / "x.csv")
    assert table.column("label") == ["1", "", "2"]
    assert table.lines == [2, 3, 4]


def test_tables_without_a_header(tmp_path):
    def names(text):
        (tmp_path / "x.csv").write_text(text)
        return read_table(tmp_path / "x.csv", header=False, spaces=True).names

    assert names("1\n2\n") == ()
    assert names("a.jpg,1\nb.jpg,2\n") == ()
    assert names("a.jpg 1\nb.jpg 2\n") == ()
    assert names("index label\n0 1\n") == ("index", "label")
    # As pandas writes a series without a name.
    assert names(",0\n0,3\n1,2\n") == ("", "0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,label\na.jpg,cat,1\n", ":2: more values than columns (3 for 2).*comma in it"),
        (b"path;label\na.jpg;cat;1\n", ":2: more values than columns (3 for 2).*semicolon in it"),
        (b"path,label\na.jpg\n", ":2: has 1 values, expected 2: path, label"),
        (b"path,label,label\na,b,c\n", ":1: two columns are called 'label'"),
        (b'path,label\n"a.jpg,cat\n', ":2: cannot be read as CSV .* is a quote not closed"),
        (b"path,label\na\0.jpg,cat\n", ":2: holds a NUL byte.*save the file as UTF-8"),
        ("path,label\n".encode("utf-16-le"), ":1: holds a NUL byte"),
        (
            "path,label\né.jpg,a".encode("latin-1"),
            ":2: byte 11 is no UTF-8; save the file as UTF-8",
        ),
        (b"", ": is empty"),
        (b"<!DOCTYPE html>\n<html>", ": is a web page"),
        (b"\n <html lang=en>", ": is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", ": is a Git LFS pointer"),
        (gzip.compress(b"path,label\n", mtime=0), ": is a gzip file.*gunzip"),
        (b"PAR1\x15", ": is a parquet file.*to_csv"),
        (b"\x93NUMPY\x01\0", ": is a NumPy array.*\\.npy"),
        (b"\x80\x04\x95", ": is a pickle.*\\.pkl"),
    ],
)
def test_what_is_no_table(tmp_path, content, words):
    (tmp_path / "x.csv").write_bytes(content)
    pattern = rf"x\.csv{words.replace('(3 for 2)', '.3 for 2.')}"
    with pytest.raises(DataError, match=pattern):
        read_table(tmp_path / "x.csv").column("label")


def test_a_workbook_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(DataError, match=r"is a zip archive.*Excel workbook.*save it as CSV"):
        read_table(tmp_path / "x.csv")
