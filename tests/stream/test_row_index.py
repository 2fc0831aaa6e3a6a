import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.stream.row_index import _MIX, RowIndex

INVERSE = pow(int(_MIX), -1, 1 << 64)
CROWDED = [(n * INVERSE) % (1 << 64) for n in range(60)]
"""Hashes chosen so that all of them fall into bucket 0."""


def rows_of(index, hashes):
    which, rows = index.candidates(np.array(hashes, np.uint64))
    found = [set() for _ in hashes]
    for i, row in zip(which.tolist(), rows.tolist(), strict=True):
        found[i].add(row)
    return found


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.lists(st.lists(st.sampled_from([*CROWDED, *range(40)]), unique=True, max_size=30), max_size=12))
def test_every_inserted_row_is_a_candidate_of_its_hash_until_it_is_removed(batches):
    index, rows = RowIndex(capacity=100), {}
    for number, batch in enumerate(batches):
        gone = [h for h in batch if h in rows]
        index.remove(np.array(gone, np.uint64), np.array([rows.pop(h) for h in gone], np.int64))
        new = [h for h in batch if h not in gone]
        rows.update({h: 1_000 * number + i for i, h in enumerate(new)})
        index.insert(np.array(new, np.uint64), np.array([rows[h] for h in new], np.int64))
        found = rows_of(index, list(rows))
        assert all(row in candidates for row, candidates in zip(rows.values(), found, strict=True))


def test_a_bucket_that_is_full_overflows_without_losing_a_row():
    index = RowIndex(capacity=100)
    hashes = np.array(CROWDED, np.uint64)
    index.insert(hashes, np.arange(60))
    assert index.n_overflowed == 60 - 16
    assert all(row in found for row, found in enumerate(rows_of(index, CROWDED)))


def test_an_emptied_index_has_no_candidates_and_no_overflow():
    index = RowIndex(capacity=100)
    hashes = np.array(CROWDED, np.uint64)
    index.insert(hashes, np.arange(60))
    index.remove(hashes, np.arange(60))
    assert index.n_overflowed == 0
    assert not any(rows_of(index, CROWDED))


def test_two_rows_may_share_a_hash():
    index = RowIndex(capacity=100)
    index.insert(np.array([5, 5], np.uint64), np.array([1, 2]))
    index.remove(np.array([5], np.uint64), np.array([1]))
    assert rows_of(index, [5]) == [{2}]


def test_random_hashes_at_full_capacity_hardly_ever_overflow():
    index = RowIndex(capacity=100_000)
    hashes = np.random.default_rng(1).integers(0, 1 << 63, 100_000).astype(np.uint64)
    index.insert(hashes, np.arange(100_000))
    assert index.n_overflowed <= 2
