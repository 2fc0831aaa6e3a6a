"""Forgetting a user on request: what the facts hold of one goes, in the tick that says so.

Gone are the row in the users table with the open visit, all rows of the history, the examples in window and
reservoir, slates, exposures, actions that wait for an impression, searches, and queries that nobody else asked. What
the learned half keeps by user goes by `Learner.forget_users`.

What stays names nobody: sums over everybody (popularity, co-occurrence, metrics, weights, item counts, join counts);
keyed digests of event ids in the dedupe, without which an event sent again would count again; the bounds that window
and reservoir keep of what they once turned away; and the sealed copies of records that could not be used. What was
held of a user who had already made room for others has no key any more by which it could be found: it leaves history
and window with their bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from stream_rec.events import MISSING
from stream_rec.stream.intake import Facts


def forget_users(facts: Facts, keys: Sequence[bytes]) -> list[int]:
    """Remove users, real ones and stand-ins, from the facts; call it when the tick's own records are folded.

    Args:
        facts: changed; window and reservoir too.
        keys: 16-byte user keys, each once, [n].

    Returns:
        The row each user had, free from now on; MISSING for one that is not known, [n].
    """
    users = facts.users
    rows = [users.find(key) for key in keys]
    if known := [row for row in rows if row != MISSING]:
        facts.histories.forget(users.last_row[known].tolist())
        for examples in (facts.window, facts.reservoir):
            examples.forget_users(users.born[known])
        users.forget_many(known)
        facts.joiner.forget_users(users.take_evicted())
    facts.searches.forget_users(rows, keys)
    return rows
