"""Every record is counted once with a reason, and a topic that has gone bad stops the worker and says where."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.errors import InputRefused
from stream_rec.stream.accounting import OUTCOMES, Accounting

VERDICTS = st.dictionaries(
    st.tuples(st.sampled_from(OUTCOMES), st.sampled_from(["", "one", "two"])), st.integers(1, 9), max_size=8
)


def watched(deaths: str, accounting: Accounting | None = None, first: int = 0) -> Accounting:
    """A topic whose records live (.) or die of `a` or `b`, offsets from `first` on."""
    accounting = accounting or Accounting()
    places = [(1, first + i) for i in range(len(deaths))]
    accounting.watch("events", places, [mark.replace(".", "") for mark in deaths])
    return accounting


@settings(derandomize=True, deadline=None)
@given(st.lists(VERDICTS, max_size=5))
def test_the_reasons_of_each_outcome_add_up_to_its_count(ticks: list[dict[tuple[str, str], int]]) -> None:
    accounting = Accounting()
    for verdicts in ticks:
        accounting.count(Counter(verdicts), {}, 0)
    for outcome in OUTCOMES:
        assert sum(accounting.reasons[outcome].values()) == accounting.totals[outcome]
    assert accounting.totals["consumed"] == sum(accounting.totals[outcome] for outcome in OUTCOMES)


def test_a_record_of_which_there_is_nothing_to_say_has_the_reason_plain() -> None:
    accounting = Accounting()
    accounting.count(Counter({("accepted", ""): 3}), {}, 0)
    assert accounting.table()["reasons"]["accepted"] == {"plain": 3}  # type: ignore[index]


def test_a_topic_of_which_more_than_half_died_stops_the_worker_and_no_less() -> None:
    watched("a." * 200)
    with pytest.raises(InputRefused, match="201 of the last 400"):
        watched("a." * 199 + "aa")


def test_fewer_than_200_records_are_too_few_to_judge() -> None:
    watched("a" * 199)


def test_a_share_of_one_never_stops() -> None:
    watched("a" * 3_000, Accounting(share=1.0))


def test_the_first_position_is_the_first_of_the_last_thousand_that_died() -> None:
    accounting = watched("a" * 99 + "." * 1_000)
    with pytest.raises(InputRefused, match=r"501 of the last 1000 .* the first at events/1 offset 1599 "):
        watched("." * 500 + "b" * 501, accounting, first=1_099)


def test_the_most_frequent_reasons_are_named_with_their_counts_and_no_word_of_unwritten_dead_letters() -> None:
    with pytest.raises(InputRefused) as refused:
        watched("b" * 60 + "a" * 150)
    assert "(a 150, b 60)" in str(refused.value)
    assert "--set quality.dead_letter_share=1" in str(refused.value)
    assert "events.format" in str(refused.value)
    assert "dead-letters" not in str(refused.value)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.text("ab....", max_size=1_500), st.text("ab....", max_size=1_500))
def test_restored_it_goes_on_as_if_never_stopped(before: str, after: str) -> None:
    one, fresh = watched(before, Accounting(share=1.0)), Accounting(share=1.0)
    fresh.restore(one.snapshot())
    for accounting in (one, fresh):
        watched(after, accounting, first=len(before))
    assert digest(one.snapshot()) == digest(fresh.snapshot())
