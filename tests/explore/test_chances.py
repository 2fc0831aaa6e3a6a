"""What is kept of a draw says which slots passed their greedy candidate over, and which show it one slot later."""

from __future__ import annotations

import numpy as np

from stream_rec.explore.chances import MOVED, greedy_chance
from stream_rec.explore.slate import DrawRules, draw
from tests.explore.ground import offer_of

RULES = DrawRules(n_slots=6, budget=0.5, policy="uniform", diversity="none", first_explorable=1, max_explored=3)


def test_codes_say_what_was_passed_over_and_what_was_moved_down_by_it() -> None:
    slates = draw(offer_of(500, 12), RULES)
    n_moved = 0
    for column, code in zip(slates.column.tolist(), slates.code.tolist(), strict=True):
        left, passed_before = list(range(12)), None
        for k, one in enumerate(column):
            # Candidates come best first, so without diversity the greedy one is the first that is left.
            greedy = left[0]
            assert (code[k] < 0) == (one != greedy)
            assert (code[k] > MOVED) == (one == greedy == passed_before)
            n_moved += code[k] > MOVED
            passed_before = greedy if one != greedy else None
            left.remove(one)
    assert n_moved > 50


def test_where_the_greedy_candidate_is_shown_its_chance_is_the_propensity() -> None:
    slates = draw(offer_of(500, 12), RULES)
    shown = slates.code > 0
    assert np.allclose(greedy_chance(slates.code)[shown], slates.propensity[shown], rtol=0.02)
    assert (greedy_chance(slates.code)[:, 0] == 1).all()
