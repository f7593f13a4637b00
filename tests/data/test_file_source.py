import json

import pyarrow
import pyarrow.parquet
import pytest

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
    fails(f"file:{tmp_path}/a.csv", "'.csv'", "convert it")
    (tmp_path / "dir.jsonl").mkdir()
    fails(f"file:{tmp_path}/dir.jsonl", "no such file")
    (tmp_path / "empty.jsonl").write_text("\n")
    fails(f"file:{tmp_path}/empty.jsonl", "0 rows")


def test_columns_of_a_table(fails, tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    fails(f"file:{path}?answer=gold", "no column 'gold'", "present: question, answer, tags")
