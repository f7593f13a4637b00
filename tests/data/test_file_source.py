import bz2
import csv
import gzip
import json
import lzma
import os
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from igrpo_jax.data import tables
from igrpo_jax.data.files import read_file

ROWS = [{"question": f"{i} + 1?", "answer": str(i + 1), "tags": ["a", str(i)]} for i in range(3)]


def write_parquet(path, rows=ROWS, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_all_formats_hold_the_same_rows(load, tmp_path):
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, ROWS)))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "array.json").write_text(json.dumps(ROWS, indent=1))
    write_parquet(tmp_path / "a.parquet", row_group_size=1)
    for name in ("a.jsonl", "lines.json", "array.json", "a.parquet"):
        source = load(f"file:{tmp_path / name}")
        assert [(p.id, p.question, p.columns) for p in list(source)] == [
            (i, row["question"], row) for i, row in enumerate(ROWS)
        ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"question": "q", "answ', "not valid JSON"),
        (b'{"question": "\xff"}', "not valid JSON"),
        (b"[1]", "is a list; every line must be a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_corrupt_line_is_named(fails, tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "q", "answer": "1"}\n\n' + line + b"\n")
    fails(f"file:{path}", f"{path}, line 3", reason)


def test_a_corrupt_array(fails, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"question": "q"},')
    fails(f"file:{path}", "not valid JSON", "line 1")
    path.write_text('[{"question": "q", "answer": 1}, 2]')
    fails(f"file:{path}", "item 1 is a int")


@pytest.mark.parametrize("keep", [0, 3, 200, -4])
def test_a_truncated_table(fails, tmp_path, keep):
    path = write_parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    fails(f"file:{path}", "no readable Parquet file", "fetch it again")


def test_a_table_with_damaged_pages(fails, tmp_path):
    path = write_parquet(tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    fails(f"file:{path}", str(path), "fetch")


def test_files_that_are_not_there(fails, tmp_path):
    fails(f"file:{tmp_path}/none.jsonl", "no such file", "none.jsonl")
    fails(f"file:{tmp_path}/a.csv", "no such file", "a.csv")
    fails(f"file:{tmp_path}/a.xlsx", "'.xlsx'", "convert it to .jsonl")
    fails(f"file:{tmp_path}/a.parquet.gz", "'.parquet.gz'", "convert it")
    (tmp_path / "dir.jsonl").mkdir()
    fails(f"file:{tmp_path}/dir.jsonl", "holds no data files", "/**/*.parquet")
    fails(f"file:{tmp_path}/no*.jsonl", "no such file; nothing matches", "no*.jsonl")
    fails("file:~nobody_at_all/a.jsonl", "home directory of nobody")
    (tmp_path / "empty.jsonl").write_text("\n")
    fails(f"file:{tmp_path}/empty.jsonl", "0 rows")


def test_columns_of_a_table(fails, tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    fails(f"file:{path}?answer=gold", "no column 'gold'", "present: question, answer, tags")


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstandard(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard), (".bz2", bz2.compress),
                                               (".xz", lzma.compress), (".GZ", gzip.compress)])  # fmt: skip
def test_compressed_files(load, fails, tmp_path, ending, pack):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(pack(LINES[:60]) + pack(LINES[60:]))  # as what is appended to is: two streams in one file
    source = load(f"file:{path}")
    assert (source.name, [p.columns for p in list(source)]) == ("a", ROWS)
    array = tmp_path / f"b.json{ending}"
    array.write_bytes(pack(json.dumps(ROWS).encode()))
    assert [p.columns for p in list(load(f"file:{array}"))] == ROWS
    for damage in (path.read_bytes()[:-8], b"no archive at all, but text"):
        path.write_bytes(damage)
        fails(f"file:{path}", str(path), "fetch the file again")


def test_csv_is_text_as_it_stands(load, fails, tmp_path):
    path = tmp_path / "a.csv"
    rows = [{"question": 'Say "a, b"\nand c', "answer": "007"}, {"question": "é?", "answer": "1.50"}, {"question": "?"}]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["question", "answer"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    source = load(f"file:{path}")
    assert [(p.question, p.columns["answer"]) for p in list(source)] == [
        ('Say "a, b"\nand c', "007"), ("é?", "1.50"), ("?", None),
    ]  # fmt: skip
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"question\tanswer\n1, 2?\t3\n\n"))
    assert load(f"file:{tmp_path}/a.tsv.gz")[0] == (0, "1, 2?", {"question": "1, 2?", "answer": "3"})
    long = "x" * 200_000  # more than Python's csv takes unless told to
    path.write_text(f"question,answer\n{long},1\n")
    assert load(f"file:{path}")[0].question == long


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        (b"question,answer\na,1\na, b,2\n", "line 3 has 3 values for 2 columns; quote"),
        (b"question,answer\na\n", "line 2 has 1 values for 2 columns"),
        (b"question,answer,answer\na,1,2\n", "names a column twice"),
        (b'question,answer\n"a" b,1\n', "line 3 is no CSV"),
        (b"question,answer\n\xff,1\n", "is no CSV in UTF-8"),
        (b"", "0 rows"),
    ],
)
def test_a_csv_that_is_none(fails, tmp_path, body, phrase):
    (tmp_path / "a.csv").write_bytes(body)
    fails(f"file:{tmp_path}/a.csv", phrase)


@pytest.fixture
def shards(tmp_path):
    """Three files of a row each, in directories and beside what is no data."""
    for number, row in enumerate(ROWS):
        folder = tmp_path / "set" / f"part{number}"
        folder.mkdir(parents=True)
        for place in (folder, tmp_path / "set"):
            (place / f"train-{number}.jsonl").write_text(json.dumps(row))
    (tmp_path / "set" / "README.md").write_text("what it is")
    (tmp_path / "set" / ".hidden.jsonl").write_text("no data")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("set", "set"), ("set/", "set"), ("set/train-*.jsonl", "train"), ("set/*.jsonl", "set"),
        ("set/train-[0-2].jsonl", "train"), ("set/train-%3F.jsonl", "train"), ("set/**/train-?.jsonl", ""),
        ("set/part*/*", "set"),
    ],
)  # fmt: skip
def test_files_of_a_directory_and_of_a_pattern(load, shards, path, name):
    spec = f"file:{shards.parent}/{path}"
    if not name:  # a question mark begins the options
        with pytest.raises(ValueError, match=r"must look like option=value"):
            load(spec)
        return
    source = load(spec)
    assert (source.name, [(p.id, p.columns) for p in list(source)]) == (name, list(enumerate(ROWS)))
    assert load(f"{spec}?offset=1&limit=1")[0].columns == ROWS[1]


def test_directories_inside_directories(load, fails, shards):
    assert len(load(f"file:{shards}/**/*.jsonl")) == 6
    assert len(load(f"file:{shards}/part1/train-1.jsonl")) == 1
    (shards / "more.csv").write_text("question,answer\n1?,1\n")
    fails(f"file:{shards}", "is of several types (csv, jsonl)", f"{shards}/*.csv")
    (shards / "state.json").write_text("{}")
    fails(f"file:{shards}", "write hf: in place of file:")


def test_a_name_with_brackets_is_a_name_first(load, tmp_path):
    (tmp_path / "a[1].jsonl").write_bytes(LINES)
    assert len(load(f"file:{tmp_path}/a[1].jsonl")) == 3


def test_tables_with_other_columns_each(load, tmp_path):
    write_parquet(tmp_path / "1.parquet", [{"question": "1?", "answer": Decimal("1.50"), "hint": "x"}])
    write_parquet(
        tmp_path / "2.parquet", [{"question": "2?", "answer": 2, "level": 3}, {"question": "3?", "answer": 3}]
    )
    columns = [p.columns for p in list(load(f"file:{tmp_path}"))]
    assert [(c["answer"], c["hint"], c["level"]) for c in columns] == [
        ("1.50", "x", None), ("2", None, 3), ("3", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "golds"),
    [
        ([Decimal("1.50"), Decimal("-12"), None], ["1.50", "-12.00", None]),
        ([Decimal("1E+2"), Decimal("0.0000001")], ["100.0000000", "0.0000001"]),
        ([True, False, None], ["True", "False", None]),
        ([1.5, float("nan"), 3.0], ["1.5", None, "3.0"]),
    ],
)
def test_answers_of_every_kind_of_column(load, fails, tmp_path, values, golds):
    path = write_parquet(tmp_path / "a.parquet", [{"question": "q", "answer": value} for value in values])
    assert [p.columns["answer"] for p in list(load(f"file:{path}"))] == golds
    if isinstance(values[0], bool):
        fails(f"file:{path}?question=answer&answer=question", "holds a bool, not the text of a question")


def test_a_home_directory(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(LINES)
    assert len(load("file:~/a.jsonl")) == len(load("file:~/*.jsonl")) == len(load("file:~")) == 3
    assert Path("~").exists() is False


def test_a_damaged_page_of_parquet_is_noticed_where_it_has_a_checksum(tmp_path):
    path = tmp_path / "data.parquet"
    table = pyarrow.table({"question": [f"what is {i}?" for i in range(50)], "answer": ["1"] * 50})
    pyarrow.parquet.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression="none")
    data = path.read_bytes()
    place = data.index(b"what is 33?")
    path.write_bytes(data[:place] + b"W" + data[place + 1 :])
    with pytest.raises(ValueError, match=r"data\.parquet is no readable Parquet file .*fetch it again"):
        read_file(str(path))


def test_text_of_parquet_that_is_no_utf8_names_the_file(tmp_path):
    path = tmp_path / "data.parquet"
    text = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"question": text, "answer": ["1"]}), path)
    with pytest.raises(ValueError, match=r"data\.parquet is no readable Parquet file .*UTF8"):
        read_file(str(path))


def test_a_parquet_file_that_says_it_is_larger_than_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q"] * 2000, "answer": ["1"] * 2000}), path)
    monkeypatch.setattr(tables.os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 100}.__getitem__)
    with pytest.raises(ValueError, match=r"it says to have \d+ bytes, and this machine's memory has 100; split it"):
        read_file(str(path))


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet", "data.csv.gz"])
def test_a_pipe_is_no_data_file(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_file(str(tmp_path / name))
