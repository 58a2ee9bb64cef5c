"""CSV files as they come: separators, decimal signs, encodings, compression; and files that are refused."""

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.table_files import TextFormat, read_table

TEXT = "kind;width;note\nä;1,5;x, y\nb;-2,25;z\n"
COLUMNS = {"kind": ["ä", "b"], "width": [1.5, -2.25], "note": ["x, y", "z"]}


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        ("kind;width;note\n" + TEXT.partition("\n")[2]).encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.replace(";", "\t").encode(),
        TEXT.replace(";", "|").encode(),
        b'kind,width,note\n\xc3\xa4,"1,5","x, y"\nb,"-2,25",z\n',
        b'kind,width,note\n\xc3\xa4,1.5,"x, y"\nb,-2.25,z\n',
        gzip.compress(TEXT.encode(), mtime=0),
        pa.compress(TEXT.encode("utf-16"), codec="zstd", asbytes=True),
    ],
    ids=[
        "utf-8",
        "crlf",
        "bom",
        "utf-16",
        "16-le",
        "16-be",
        "utf-32",
        "tab",
        "bar",
        "quoted comma",
        "comma",
        "gzip",
        "zstd",
    ],
)
def test_a_csv_file_is_read_whatever_it_is_written_by(content: bytes, tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "t.csv", content))
    assert table.to_pydict() == COLUMNS


@pytest.mark.parametrize(("name", "kind"), [("t.csv.gz", "gzip"), ("t.tsv.zst", "zstd"), ("t.txt.GZ", "gzip")])
def test_a_compressed_file_is_a_table_by_both_endings(name: str, kind: str, tmp_path: Path) -> None:
    content = TEXT.replace(";", "\t").encode()
    path = written(tmp_path / name, pa.compress(content, codec=kind, asbytes=True))
    assert read_table(path).to_pydict() == COLUMNS


def test_decimal_commas_may_have_exponents(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "t.csv", "kind;price\na;1,5e-3\nb;2,5E4\n"))
    assert table.column("price").to_pylist() == [1.5e-3, 2.5e4]


def test_numbers_with_commas_between_thousands_are_no_decimals(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "t.csv", 'kind,price\na,"1,234"\nb,"12,345"\n'))
    assert table.column("price").to_pylist() == ["1,234", "12,345"]


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "kind width\né 1,5\nb 2\n".encode("latin-1"))
    table = read_table(path, text_format=TextFormat(" ", ",", "latin-1"))
    assert table.to_pydict() == {"kind": ["é", "b"], "width": [1.5, 2.0]}


def test_text_in_another_encoding_names_row_column_and_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "width,kind\n1,cafe\n\n2,café\n".encode("latin-1"))
    with pytest.raises(DataError) as error:
        read_table(path)
    told = str(error.value)
    assert f"{path}: the byte 0xe9 in row 1, column 'kind' is no text in UTF-8" in told
    assert "Save the file as UTF-8" in told and "tasks.encoding: latin-1" in told
    header = written(tmp_path / "h.csv", "a,café\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="0xe9 in the header, column 2 is no text"):
        read_table(header)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b,a\n1,2,3\n", r"2 columns are named 'a' \(columns 1, 3, counted from 1\): rename them"),
        ("a,b,c\n1,2,3\n\n1,2\n", r"row 1 has 2 cells where the header has 3 \('1,2'; rows count from 0\)"),
        ("a;b;c\n1;2;3\n1;2\n", "row 1 has 2 cells where the header has 3 .* taken to be a semicolon"),
        ("", "cannot be read as a table"),
        ('a,b\n1,x\n2,"y\n3,z\n', r"a quotation mark in row 1, column 'b' is never closed"),
        (gzip.compress(b"a,b\n1,2\n" * 100, mtime=0)[:-12], "cannot be read as a table"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes | str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read_table(written(tmp_path / "t.csv", content))


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="2 columns are named 'a'"):
        read_table(tmp_path / "t.parquet")


def test_the_columns_of_trailing_separators_are_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "kind,a,,\n" + "".join(f"{row // 2},{row % 3}.5,,\n" for row in range(20)))
    assert read_table(path).column_names == ["kind", "a", "Unnamed: 2", "Unnamed: 3"]
    tasks = {"source": "table", "path": str(path), "label": "kind", "ways": 2, "queries": 1}
    source = open_source(tasks, seed=0, cache=tmp_path / "cache")
    told = "not used as features, since they have no value in any row: 'Unnamed: 2', 'Unnamed: 3'"
    assert source.shape.features == ("a",) and source.notes[0] == told


def test_a_row_may_be_longer_than_a_mebibyte(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "t.csv", f"kind,note\na,{'x' * (2 << 20)}\nb,y\n"))
    assert table.column("kind").to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"separator": ";;"}, "tasks.separator: got the text ';;'; allowed: one character, or tab"),
        ({"encoding": "latin9000"}, "tasks.encoding: got the text 'latin9000'; allowed: a name of Python's encodings"),
        ({"decimal": ";"}, "tasks.decimal"),
    ],
)
def test_formats_that_there_are_not_are_refused(fields: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        open_source({"source": "table", "path": "t.csv", "label": "kind", **fields}, seed=0, cache=tmp_path)


def test_a_process_that_ends_after_a_table_was_read_is_not_aborted(tmp_path: Path) -> None:
    """Six of them: with Arrow's threads about half were."""
    (tmp_path / "a.csv").write_text("rate,loss\n0.1,2\n")
    code = "import sys, pathlib; from metaloom.workers.data.table_files import read_table as read; "
    code += "read(pathlib.Path(sys.argv[1])); sys.exit(2)"
    run = [sys.executable, "-c", code, str(tmp_path / "a.csv")]
    assert [subprocess.run(run, check=False, capture_output=True).returncode for _ in range(6)] == [2] * 6
