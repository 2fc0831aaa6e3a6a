"""Lines read one at a time, files written whole."""

import gzip
from pathlib import Path

import pytest

from stream_rec.io.lines import LineReader, written_whole


def test_a_line_above_the_limit_is_cut_and_the_next_is_whole(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a" * 5_000_000 + b"\nbc\n")
    assert [len(line) for line in LineReader(path, max_line_bytes=1000)] == [1001, 2]


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress])
def test_a_place_leads_back_to_its_line(tmp_path, pack):
    path = tmp_path / "lines"
    path.write_bytes(pack(b"one\ntwo\r\n\nfour"))
    reader = LineReader(path)
    places = []
    while (place := reader.place, line := reader.read())[1] is not None:
        places.append((place, line))
    assert [LineReader(path, at_byte=place).read() for place, _ in places] == [line for _, line in places]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
def test_what_is_written_is_read(tmp_path: Path, name):
    path = tmp_path / "new" / name
    with written_whole(path) as out:
        out.write(b"one\ntwo\n")
    assert list(LineReader(path)) == [b"one", b"two"]
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_equal_content_gives_equal_compressed_bytes(tmp_path):
    for name in ("a.gz", "b.gz"):
        with written_whole(tmp_path / name) as out:
            out.write(b"same")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as out:
        out.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
