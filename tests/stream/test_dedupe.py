from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.row_index import _MIX

CROWDED = [(n * pow(int(_MIX), -1, 1 << 64)) % (1 << 64) for n in range(40)]
BATCHES = st.lists(st.lists(st.sampled_from([*CROWDED, *range(30)]), max_size=25), max_size=15)


class Oracle:
    def __init__(self, capacity):
        self.capacity, self.seen = capacity, OrderedDict()

    def admit_many(self, digests):
        new, answers = [], []
        for d in digests:
            answers.append(d not in self.seen and d not in new)
            if answers[-1]:
                new.append(d)
        self.seen.update(dict.fromkeys(new))
        while len(self.seen) > self.capacity:
            self.seen.popitem(last=False)
        return answers


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.integers(1, 60), BATCHES)
def test_answers_equal_a_plain_ordered_dict(capacity, batches):
    dedupe, oracle = Dedupe(capacity), Oracle(capacity)
    for batch in batches:
        assert dedupe.admit_many(batch) == oracle.admit_many(batch)
        assert dedupe.used() == len(oracle.seen)


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(1, 40), BATCHES, BATCHES)
def test_a_restored_dedupe_goes_on_like_one_that_never_stopped(capacity, before, after):
    dedupe, fresh = Dedupe(capacity), Dedupe(capacity)
    for batch in before:
        dedupe.admit_many(batch)
    fresh.restore(dedupe.snapshot())
    assert [fresh.admit_many(b) for b in after] == [dedupe.admit_many(b) for b in after]
    assert digest(fresh.snapshot()) == digest(dedupe.snapshot())


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 50), max_size=60))
def test_the_cut_into_calls_does_not_matter_while_nothing_is_forgotten(digests):
    whole, single = Dedupe(100), Dedupe(100)
    assert whole.admit_many(digests) == [single.admit(d) for d in digests]
    assert digest(whole.snapshot()) == digest(single.snapshot())


def test_the_largest_digest_and_zero_are_remembered():
    dedupe = Dedupe(10)
    assert dedupe.admit_many([0, 2**64 - 1]) == [True, True]
    assert dedupe.admit_many([2**64 - 1, 0]) == [False, False]


def test_memory_stays_the_same_on_an_endless_stream():
    dedupe, rng = Dedupe(1_000), np.random.default_rng(1)
    for _ in range(50):
        dedupe.admit_many(rng.integers(0, 1 << 63, 700))
    assert dedupe.n_bytes() == 8_000
    assert dedupe._index.n_overflowed <= 2


def test_no_room_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Dedupe(0)
