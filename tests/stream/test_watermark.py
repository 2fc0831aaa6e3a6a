import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.stream.watermark import BEFORE_TIME, Watermarks

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2_000)), max_size=60)


def marks_of(bound_ms=50, lateness_ms=200):
    return Watermarks(bound_ms, lateness_ms, max_partitions=4)


@settings(derandomize=True, deadline=None)
@given(EVENTS)
def test_a_batch_is_judged_as_its_events_one_by_one(events):
    many, one = marks_of(), marks_of()
    late = many.judge_many([p for p, _ in events], [at for _, at in events])
    assert late.tolist() == [one.judge(p, at) for p, at in events]
    assert digest(many.snapshot()) == digest(one.snapshot())


@settings(derandomize=True, deadline=None)
@given(EVENTS)
def test_an_event_is_late_exactly_when_it_lies_beyond_bound_and_lateness_behind_its_own_partition(events):
    late = marks_of().judge_many([p for p, _ in events], [at for _, at in events])
    newest = {}
    for (partition, at), is_late in zip(events, late.tolist(), strict=True):
        assert is_late == (at < newest.get(partition, BEFORE_TIME) - 250)
        newest[partition] = max(at, newest.get(partition, BEFORE_TIME))


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 5_000), max_size=60), st.randoms(use_true_random=False))
def test_shuffling_arrival_within_the_bound_makes_nothing_late_and_ends_at_the_same_watermark(times, random):
    times.sort()
    shuffled = sorted(times, key=lambda at: at + random.uniform(0, 49))
    ordered, mixed = marks_of(), marks_of()
    assert not ordered.judge_many([0] * len(times), times).any()
    assert not mixed.judge_many([0] * len(times), shuffled).any()
    assert ordered.advance() == mixed.advance()
    assert digest(ordered.snapshot()) == digest(mixed.snapshot())


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.sets(st.integers(0, 3))), max_size=8), st.sets(st.integers(0, 3)))
def test_the_global_watermark_is_the_least_of_speaking_and_followed_partitions_and_never_falls(ticks, followed):
    marks, expected = marks_of(), BEFORE_TIME
    marks.follow(followed)
    newest = dict.fromkeys(followed, BEFORE_TIME)
    for events, idle in ticks:
        marks.set_idle(tuple(idle))
        marks.judge_many([p for p, _ in events], [at for _, at in events])
        for partition, at in events:
            newest[partition] = max(at, newest.get(partition, at))
        waits = [at for p, at in newest.items() if p not in idle or p in {q for q, _ in events}]
        expected = max(expected, min(waits) - 50) if waits else expected
        assert marks.advance() == expected == marks.global_ms


@settings(derandomize=True, deadline=None)
@given(EVENTS, EVENTS, st.sets(st.integers(0, 3)))
def test_restored_watermarks_go_on_like_ones_that_never_stopped(before, after, idle):
    marks, fresh = marks_of(), marks_of()
    marks.judge_many([p for p, _ in before], [at for _, at in before])
    marks.set_idle(idle)
    fresh.restore(marks.snapshot())
    for one in (marks, fresh):
        one.late = one.judge_many([p for p, _ in after], [at for _, at in after]).tolist()
        one.advance()
    assert marks.late == fresh.late
    assert digest(marks.snapshot()) == digest(fresh.snapshot())


def test_nothing_is_known_before_the_first_event():
    assert marks_of().advance() == BEFORE_TIME


def test_a_slow_partition_does_not_make_its_events_late():
    marks = marks_of()
    assert marks.judge_many([0, 1, 0], [10_000, 0, 10_100]).tolist() == [False, False, False]
    assert marks.advance() == 0 - 50


def test_an_idle_partition_is_not_waited_for_until_it_speaks_again():
    marks = marks_of()
    marks.judge_many([0, 1], [1_000, 100])
    marks.set_idle((1,))
    assert marks.advance() == 950
    marks.judge(1, 2_000)
    marks.judge(0, 3_000)
    assert marks.advance() == 1_950


def test_the_watermark_stays_when_every_partition_is_idle():
    marks = marks_of()
    marks.judge(0, 1_000)
    marks.advance()
    marks.set_idle((0,))
    assert marks.advance() == 950


def test_the_boundary_itself_is_not_late():
    assert marks_of().judge_many(np.array([0, 0, 0]), np.array([1_000, 750, 749])).tolist() == [False, False, True]


def test_a_followed_partition_that_has_not_spoken_holds_the_watermark_until_it_speaks():
    marks = marks_of()
    marks.follow([0, 1])
    marks.judge(0, 1_000)
    assert marks.advance() == BEFORE_TIME
    marks.judge(1, 700)
    assert marks.advance() == 650


def test_a_silent_partition_followed_later_moves_nothing_backwards():
    marks = marks_of()
    marks.judge(0, 1_000)
    marks.advance()
    marks.follow([2])
    marks.judge(0, 5_000)
    assert marks.advance() == 950


def test_restored_watermarks_still_wait_for_a_silent_partition():
    marks, fresh = marks_of(), marks_of()
    marks.follow([0, 3])
    fresh.restore(marks.snapshot())
    fresh.judge(0, 1_000)
    assert fresh.advance() == BEFORE_TIME
