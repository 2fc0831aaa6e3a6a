"""Claims about joining impressions and actions to slates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING, Kind
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.decisions import EVERYBODY
from stream_rec.stream.exposures import BOUGHT, CLICKED, WEAK, ShownLists
from stream_rec.stream.joins import MINUTE_MS, STATUSES

ANN, BOB = 4, 5
CUP, JUG, PAN = 10, 11, 12
DAY_MS = 1440 * MINUTE_MS


def shop(**settings_: int) -> Joiner:
    """A joiner in which Ann's slate d1 (cup, jug, pan) was published at 0."""
    joiner = Joiner(**{"max_decisions": 64, "max_exposures": 64, "n_slots": 3, **settings_})
    joiner.publish(ANN, 1, "d1", at_ms=0, items=[CUP, JUG, PAN])
    return joiner


def show(
    joiner: Joiner, items: tuple[int, ...] = (CUP, JUG, PAN), *, user: int = ANN, name: str = "d1", at_ms: int = 1000
) -> str:
    return joiner.impression(name, user, [(item, k) for k, item in enumerate(items)], at_ms)


def labels_of(joiner: Joiner, watermark_ms: int) -> dict[tuple[int, int], dict[int, int]]:
    """{(user, at_ms): {item: label bits}} of the exposures whose click window closed."""
    click = joiner.mature(watermark_ms).click
    return {
        (int(click.user[m]), int(click.at_ms[m])): {
            int(i): int(b) for i, b in zip(click.items[m], click.labels[m], strict=True) if i != MISSING
        }
        for m in range(len(click.row))
    }


def test_click_on_a_shown_item_joins_exactly() -> None:
    joiner = shop()
    assert show(joiner) == "exposed"
    join = joiner.feedback(Kind.CLICK, ANN, JUG, "d1", 2000)
    assert (join.status, join.position) == ("exact", 1)


def test_click_without_impression_is_implied() -> None:
    join = shop().feedback(Kind.CLICK, ANN, PAN, "d1", 2000)
    assert (join.status, join.position, join.exposure) == ("implied", 2, MISSING)


def test_click_without_decision_id_joins_weakly_within_its_window() -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(Kind.CLICK, ANN, JUG, "", 1000 + 30 * MINUTE_MS).status == "weak"
    assert joiner.feedback(Kind.CLICK, ANN, JUG, "", 1001 + 30 * MINUTE_MS).status == "none"


def test_weak_join_looks_only_at_what_was_shown_before() -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(Kind.CLICK, ANN, JUG, "", 999).status == "none"


def test_weak_join_takes_the_newest_exposure_that_showed_the_item() -> None:
    joiner = shop()
    show(joiner, (JUG,), at_ms=1000)
    joiner.publish(ANN, 1, "d2", at_ms=1500, items=[CUP, JUG])
    joiner.publish(ANN, 1, "d3", at_ms=1600, items=[CUP])
    show(joiner, (CUP, JUG), name="d2", at_ms=2000)
    show(joiner, (CUP,), name="d3", at_ms=3000)
    assert joiner.feedback(Kind.CLICK, ANN, JUG, "", 4000).position == 1
    assert labels_of(joiner, DAY_MS) == {(ANN, 1000): {JUG: 0}, (ANN, 2000): {CUP: 0, JUG: WEAK}, (ANN, 3000): {CUP: 0}}


def test_decision_that_made_room_is_still_known_while_its_exposure_waits() -> None:
    joiner = shop()
    show(joiner, (CUP,))
    for k in range(2, 5):
        joiner.publish(ANN, 1, f"d{k}", at_ms=k, items=[PAN])
    assert show(joiner, (JUG,), at_ms=1500) == "repeated"
    assert joiner.feedback(Kind.CLICK, ANN, JUG, "d1", 2000).status == "exact"


def test_published_but_never_shown_slate_joins_nothing_weakly() -> None:
    assert shop().feedback(Kind.PURCHASE, ANN, JUG, "", 2000).status == "none"


@pytest.mark.parametrize(
    ("kind", "window_ms"),
    [(Kind.CLICK, 30 * MINUTE_MS), (Kind.ADD_TO_CART, 360 * MINUTE_MS), (Kind.PURCHASE, 7 * DAY_MS)],
)
def test_each_kind_waits_its_own_window(kind: Kind, window_ms: int) -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(kind, ANN, CUP, "d1", 1000 + window_ms).status == "exact"
    assert joiner.feedback(kind, ANN, JUG, "d1", 1001 + window_ms).status == "implied"


def test_kinds_without_a_window_join_nothing_and_are_not_counted() -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(Kind.SEARCH, ANN, CUP, "d1", 2000).status == "none"
    assert joiner.counts()["none"] == 0


def test_shown_list_is_the_impressions_not_the_slates() -> None:
    joiner = shop()
    joiner.impression("d1", ANN, [(PAN, 7)], 1000)
    assert joiner.feedback(Kind.CLICK, ANN, PAN, "d1", 2000).position == 7
    assert joiner.feedback(Kind.CLICK, ANN, CUP, "d1", 2000).status == "implied"


def test_item_in_no_list_of_the_named_decision_joins_nothing() -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(Kind.CLICK, ANN, 99, "d1", 2000).status == "none"
    assert joiner.counts()["not_in_list"] == 1


def test_slate_of_everybody_has_an_exposure_for_each_user() -> None:
    joiner = shop()
    joiner.publish(EVERYBODY, MISSING, "star", at_ms=0, items=[CUP, JUG])
    show(joiner, (CUP, JUG), name="star")
    show(joiner, (CUP, JUG), name="star", user=BOB, at_ms=1500)
    joiner.feedback(Kind.CLICK, BOB, CUP, "star", 2000)
    found = labels_of(joiner, DAY_MS)
    assert found == {(ANN, 1000): {CUP: 0, JUG: 0}, (BOB, 1500): {CUP: CLICKED, JUG: 0}}


def test_session_that_logs_in_keeps_its_exposure() -> None:
    joiner = shop()
    show(joiner)
    assert joiner.feedback(Kind.CLICK, BOB, CUP, "d1", 2000).status == "exact"


def test_exposure_matures_once_when_the_watermark_passes_its_click_window() -> None:
    joiner = shop()
    show(joiner)
    assert labels_of(joiner, 1000 + 30 * MINUTE_MS) == {}
    assert labels_of(joiner, 1001 + 30 * MINUTE_MS) == {(ANN, 1000): {CUP: 0, JUG: 0, PAN: 0}}
    assert labels_of(joiner, DAY_MS) == {}


def test_weakly_joined_slot_is_marked_and_no_false_negative() -> None:
    joiner = shop()
    show(joiner)
    joiner.feedback(Kind.CLICK, ANN, JUG, "", 2000)
    assert labels_of(joiner, DAY_MS)[ANN, 1000] == {CUP: 0, JUG: WEAK, PAN: 0}


def test_purchase_joins_after_the_click_window_and_is_handed_out_when_its_own_closes() -> None:
    joiner = shop()
    show(joiner)
    joiner.mature(DAY_MS)
    assert joiner.feedback(Kind.PURCHASE, ANN, PAN, "d1", 2 * DAY_MS).status == "exact"
    closed = joiner.mature(8 * DAY_MS).purchase
    assert closed.labels.tolist() == [[0, 0, BOUGHT]]
    assert joiner.exposures.n_held == 0


def test_retracted_purchase_leaves_no_label() -> None:
    joiner = shop()
    show(joiner)
    joiner.feedback(Kind.PURCHASE, ANN, PAN, "d1", 2000)
    assert joiner.retract(ANN, PAN)
    assert not joiner.retract(ANN, PAN)
    assert joiner.mature(8 * DAY_MS).purchase.labels.tolist() == [[0, 0, 0]]


def test_click_that_arrives_before_its_impression_is_labelled() -> None:
    joiner = shop()
    joiner.feedback(Kind.CLICK, ANN, JUG, "d1", 2000)
    show(joiner)
    assert labels_of(joiner, DAY_MS)[ANN, 1000][JUG] == CLICKED


def test_repeated_impression_adds_to_the_exposure_from_the_first_time_shown() -> None:
    joiner = shop()
    show(joiner, (CUP,), at_ms=2000)
    assert show(joiner, (CUP, JUG), at_ms=1000) == "repeated"
    assert labels_of(joiner, DAY_MS) == {(ANN, 1000): {CUP: 0, JUG: 0}}


def test_impression_after_the_click_window_is_an_exposure_of_its_own() -> None:
    joiner = shop()
    show(joiner)
    assert show(joiner, at_ms=DAY_MS) == "exposed"
    joiner.feedback(Kind.CLICK, ANN, CUP, "d1", DAY_MS + 5)
    found = labels_of(joiner, 2 * DAY_MS)
    assert (found[ANN, 1000][CUP], found[ANN, DAY_MS][CUP]) == (0, CLICKED)


def test_item_shown_twice_in_a_list_has_one_slot() -> None:
    joiner = shop()
    show(joiner, (CUP, CUP, JUG))
    assert labels_of(joiner, DAY_MS)[ANN, 1000] == {CUP: 0, JUG: 0}


@pytest.mark.parametrize(("name", "user", "word"), [("other", ANN, "unknown_decision"), ("d1", MISSING, "no_user")])
def test_impression_that_cannot_be_placed_opens_nothing(name: str, user: int, word: str) -> None:
    joiner = shop()
    assert show(joiner, name=name, user=user) == word
    assert joiner.exposures.n_held == 0


def test_only_the_last_two_slates_of_a_user_are_kept_and_unseen_ones_counted() -> None:
    joiner = shop()
    show(joiner)
    for k in range(2, 7):
        joiner.publish(ANN, 1, f"d{k}", at_ms=k, items=[CUP])
    assert joiner.decisions.n_held == 2
    assert joiner.counts()["unshown"] == 3


def test_slate_in_force_is_the_last_published_strictly_before() -> None:
    joiner = shop()
    joiner.publish(ANN, 1, "d2", at_ms=50, items=[PAN])
    assert [joiner.in_force(ANN, 1, at) is None for at in (0, 1)] == [True, False]
    assert joiner.in_force(ANN, 1, 50).tolist() == [CUP, JUG, PAN]
    assert joiner.in_force(ANN, 1, 51).tolist() == [PAN, MISSING, MISSING]


def test_expired_slate_and_slate_of_an_earlier_user_of_the_row_are_not_in_force() -> None:
    joiner = shop()
    assert joiner.in_force(ANN, 1, 7 * DAY_MS + 1) is None
    assert joiner.in_force(ANN, 2, 5) is None


def test_newest_slates_holding_an_item_name_their_users() -> None:
    joiner = shop()
    joiner.publish(BOB, 1, "e1", at_ms=0, items=[CUP])
    joiner.publish(BOB, 1, "e2", at_ms=0, items=[JUG])
    joiner.publish(EVERYBODY, MISSING, "star", at_ms=0, items=[CUP])
    assert joiner.holding(np.array([CUP, MISSING])).tolist() == [ANN]


def test_exposure_evicted_before_its_window_closed_is_counted_and_never_a_negative() -> None:
    joiner = shop(max_exposures=2)
    for k in range(4):
        joiner.publish(k, 1, f"x{k}", at_ms=0, items=[CUP])
        show(joiner, (CUP,), user=k, name=f"x{k}", at_ms=1000 + k)
    assert joiner.counts()["evicted_waiting"] == 2
    assert set(labels_of(joiner, DAY_MS)) == {(2, 1002), (3, 1003)}


def test_star_never_makes_room_for_users_slates() -> None:
    joiner = Joiner(max_decisions=3, max_exposures=4, n_slots=2)
    joiner.publish(EVERYBODY, MISSING, "star", at_ms=0, items=[CUP])
    for k in range(10):
        joiner.publish(k, 1, f"x{k}", at_ms=k, items=[JUG])
    assert joiner.in_force(EVERYBODY, MISSING, 5).tolist() == [CUP, MISSING]


def test_forgotten_users_and_items_leave_slates_and_exposures() -> None:
    joiner = shop()
    show(joiner)
    joiner.forget_items([CUP])
    assert joiner.in_force(ANN, 1, 5).tolist() == [MISSING, JUG, PAN]
    joiner.forget_users([ANN])
    assert joiner.in_force(ANN, 1, 5) is None
    assert joiner.exposures.n_held == 0


def test_who_gets_the_row_of_a_forgotten_user_does_not_get_what_that_one_did_too_early() -> None:
    """The slate for everybody has an exposure a user row, so its key is the same for whoever has the row."""
    joiner = shop()
    joiner.publish(EVERYBODY, MISSING, "star", at_ms=0, items=[CUP, JUG])
    assert joiner.feedback(Kind.CLICK, BOB, CUP, "star", 900).status == "implied"
    joiner.forget_users([BOB])
    assert show(joiner, (CUP, JUG), user=BOB, name="star") == "exposed"
    assert joiner.counts()["rejoined"] == 0
    assert labels_of(joiner, DAY_MS) == {(BOB, 1000): {CUP: 0, JUG: 0}}


def test_an_early_action_on_a_slate_that_has_made_room_is_forgotten_too() -> None:
    joiner = shop()
    joiner.feedback(Kind.CLICK, ANN, CUP, "d1", 900)
    for name in ("d2", "d3"):
        joiner.publish(ANN, 1, name, at_ms=1000, items=[JUG])
    joiner.forget_users([ANN])
    assert len(joiner.early) == 0


def test_interval_counts_start_again_after_each_reading() -> None:
    joiner = shop()
    show(joiner)
    joiner.feedback(Kind.CLICK, ANN, CUP, "d1", 2000)
    joiner.mature(DAY_MS)
    assert joiner.take_interval() == {"impressions": 1, "clicks": 1, "click_rate": 1.0, "join_rate": 1.0}
    assert joiner.take_interval() == {"impressions": 0, "clicks": 0, "click_rate": None, "join_rate": None}
    assert joiner.counts()["exact"] == 1


# ---- properties

N_USERS, N_ITEMS = 4, 5
USER = st.integers(0, N_USERS - 1)
ITEM = st.integers(0, N_ITEMS - 1)
SLATE = st.lists(ITEM, max_size=3, unique=True)
PAUSE = st.sampled_from([0, MINUTE_MS, 10 * MINUTE_MS, 40 * MINUTE_MS, 5 * DAY_MS])
KIND = st.sampled_from([Kind.CLICK, Kind.ADD_TO_CART, Kind.PURCHASE])
ACTION = st.tuples(
    PAUSE,
    st.one_of(
        st.tuples(
            st.just("publish"), st.integers(-1, N_USERS - 1), st.integers(0, 5), st.lists(ITEM, max_size=3, unique=True)
        ),
        st.tuples(st.just("impression"), USER, st.integers(0, 5), st.lists(ITEM, max_size=3)),
        st.tuples(st.just("feedback"), USER, st.integers(-1, 5), ITEM, KIND),
        st.tuples(st.just("mature")),
        st.tuples(st.just("retract"), USER, ITEM),
        st.tuples(st.just("forget"), USER, ITEM),
    ),
)


def perform(joiner: Joiner, actions: list[tuple], *, began_ms: int = 0) -> list[object]:
    """Run actions, each after its pause; a user's first slate comes with the first action."""
    said: list[object] = []
    at_ms = began_ms
    if not began_ms:
        for user in range(-1, N_USERS):
            joiner.publish(user, 1, f"d{user + 1}", at_ms=0, items=[0, 1, 2])
    for pause_ms, (word, *rest) in actions:
        at_ms += pause_ms
        if word == "publish":
            joiner.publish(rest[0], 1, f"d{rest[1]}", at_ms=at_ms, items=rest[2])
        elif word == "impression":
            said.append(joiner.impression(f"d{rest[1]}", rest[0], [(i, 9 - p) for p, i in enumerate(rest[2])], at_ms))
        elif word == "feedback":
            name = "" if rest[1] < 0 else f"d{rest[1]}"
            said.append(tuple(joiner.feedback(rest[3], rest[0], rest[2], name, at_ms)))
        elif word == "mature":
            said.append([column.tolist() for exposed in joiner.mature(at_ms) for column in exposed])
        elif word == "retract":
            said.append(joiner.retract(*rest))
        else:
            joiner.forget_users([rest[0]])
            joiner.forget_items([rest[1]])
        in_force = [joiner.in_force(user, 1, at_ms) for user in range(-1, N_USERS)]
        said.append([items is not None and items.tolist() for items in in_force])
    return said


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(ACTION, max_size=60), st.integers(0, 60), st.integers(3, 12))
def test_restored_joiner_goes_on_as_if_never_stopped(actions: list[tuple], cut: int, capacity: int) -> None:
    def fresh() -> Joiner:
        return Joiner(max_decisions=capacity, max_exposures=capacity, n_slots=3)

    joiner, twin = fresh(), fresh()
    perform(joiner, actions[:cut])
    perform(twin, actions[cut:])
    twin.restore(joiner.snapshot())
    assert digest(twin.snapshot()) == digest(joiner.snapshot())
    began_ms = 1 + sum(pause_ms for pause_ms, _ in actions[:cut])
    assert perform(twin, actions[cut:], began_ms=began_ms) == perform(joiner, actions[cut:], began_ms=began_ms)
    assert digest(twin.snapshot()) == digest(joiner.snapshot())


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(ACTION, max_size=80), st.integers(1, 6))
def test_tables_stay_within_capacity_and_free_rows_are_blank(actions: list[tuple], capacity: int) -> None:
    joiner = Joiner(max_decisions=capacity, max_exposures=capacity, n_slots=3)
    perform(joiner, actions)
    for table in (joiner.decisions, joiner.exposures):
        assert table.n_held <= capacity
        held = np.zeros(capacity, bool)
        held[: table.n_rows] = table._held()
        assert all(not getattr(table, name)[~held].any() for name in table.columns)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(USER, ITEM, st.integers(-1, 3), st.integers(0, 90)), max_size=30))
def test_joining_a_tick_at_once_equals_one_action_after_another(acts: list[tuple[int, int, int, int]]) -> None:
    def prepared() -> Joiner:
        joiner = Joiner(max_decisions=16, max_exposures=16, n_slots=3)
        for user in range(3):
            joiner.publish(user - 1, 1, f"d{user}", at_ms=0, items=[0, 1, 2])
            show(joiner, (user, 4), user=user, name=f"d{user}", at_ms=user * MINUTE_MS)
        return joiner

    at_once, singly = prepared(), prepared()
    users, items, names, minutes = zip(*acts, strict=True) if acts else ((), (), (), ())
    decisions = ["" if d < 0 else f"d{d}" for d in names]
    at_ms = [m * MINUTE_MS for m in minutes]
    joins = at_once.feedback_many([Kind.CLICK] * len(acts), users, items, decisions=decisions, at_ms=at_ms)
    one_by_one = [
        tuple(singly.feedback(Kind.CLICK, u, i, d, t))
        for u, i, d, t in zip(users, items, decisions, at_ms, strict=True)
    ]
    assert [
        (STATUSES[s], p, e)
        for s, p, e in zip(joins.status.tolist(), joins.position.tolist(), joins.exposure.tolist(), strict=True)
    ] == one_by_one
    assert digest(at_once.snapshot()) == digest(singly.snapshot())


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.data())
def test_labels_do_not_depend_on_arrival_order_within_the_bound(data: st.DataObject) -> None:
    shown = data.draw(st.lists(st.tuples(USER, st.integers(0, 300)), min_size=1, max_size=6, unique_by=lambda s: s[0]))
    clicks = data.draw(
        st.lists(st.tuples(st.sampled_from([u for u, _ in shown]), st.integers(0, 2), st.integers(0, 29)), max_size=8)
    )
    began = dict(shown)
    records = [("show", user, 0, at) for user, at in shown] + [("click", u, i, began[u] + d) for u, i, d in clicks]
    records.sort(key=lambda r: r[3])
    delays = data.draw(st.lists(st.integers(0, 10), min_size=len(records), max_size=len(records)))
    shuffled = [r for _, r in sorted(zip(delays, records, strict=True), key=lambda p: p[1][3] + p[0])]

    def outcome(arrivals: list[tuple]) -> dict[tuple[int, int], dict[int, int]]:
        joiner = Joiner(max_decisions=16, max_exposures=16, n_slots=3)
        for user in range(N_USERS):
            joiner.publish(user, 1, f"d{user}", at_ms=0, items=[0, 1, 2])
        for word, user, item, minute in arrivals:
            if word == "show":
                show(joiner, (0, 1, 2), user=user, name=f"d{user}", at_ms=minute * MINUTE_MS)
            else:
                joiner.feedback(Kind.CLICK, user, item, f"d{user}", minute * MINUTE_MS)
        return labels_of(joiner, 10 * DAY_MS)

    assert outcome(shuffled) == outcome(records)


SHOWN = st.tuples(USER, st.integers(-1, 4), st.lists(st.integers(-1, 6), max_size=5), st.integers(0, 60))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(SHOWN, max_size=20), st.lists(st.tuples(USER, ITEM), max_size=4))
def test_impressions_of_a_tick_at_once_equal_one_after_another(
    shown: list[tuple], early: list[tuple[int, int]]
) -> None:
    def prepared() -> Joiner:
        joiner = Joiner(max_decisions=16, max_exposures=64, n_slots=3)
        for k in range(4):
            joiner.publish(k - 1, 1, f"d{k}", at_ms=0, items=[0, 1, 2, 3][: k + 1])
        for user, item in early:
            joiner.feedback(Kind.CLICK, user, item, f"d{user}", 5)
        return joiner

    at_once, singly = prepared(), prepared()
    lists = ShownLists.of(
        [len(items) for _, _, items, _ in shown],
        [item for _, _, items, _ in shown for item in items],
        [k - 1 for _, _, items, _ in shown for k in range(len(items))],
    )
    words = at_once.impressions(
        [f"d{d}" for _, d, _, _ in shown], [u for u, *_ in shown], [m * MINUTE_MS for *_, m in shown], shown=lists
    )
    assert words == [
        singly.impression(f"d{d}", u, [(item, k - 1) for k, item in enumerate(items)], m * MINUTE_MS)
        for u, d, items, m in shown
    ]
    assert digest(at_once.snapshot()) == digest(singly.snapshot())


PUBLISHED = st.tuples(st.integers(-1, 3), st.integers(1, 2), st.integers(0, 12), st.lists(ITEM, max_size=4))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(PUBLISHED, max_size=12), st.lists(PUBLISHED, max_size=12))
def test_slates_of_a_tick_at_once_equal_one_after_another(before: list[tuple], slates: list[tuple]) -> None:
    at_once, singly = (Joiner(max_decisions=32, max_exposures=4, n_slots=3) for _ in range(2))
    for joiner in (at_once, singly):
        for user, born, name, items in before:
            joiner.publish(user, born, f"d{name}", at_ms=1, items=items)
    padded = np.array([(*items, *[MISSING] * 4)[:4] for *_, items in slates], np.int32).reshape(-1, 4)
    users, borns, names = zip(*(slate[:3] for slate in slates), strict=True) if slates else ((), (), ())
    at_once.publish_many(users, borns, [f"d{name}" for name in names], at_ms=2, items=padded)
    for user, born, name, items in slates:
        singly.publish(user, born, f"d{name}", at_ms=2, items=items)
    assert digest(at_once.snapshot()) == digest(singly.snapshot())


def test_more_impressions_than_exposures_fit_keep_the_last() -> None:
    joiner = shop(max_exposures=2)
    for user in range(5):
        joiner.publish(user, 1, f"x{user}", at_ms=0, items=[CUP])
    lists = ShownLists.of([1] * 5, [CUP] * 5, [0] * 5)
    joiner.impressions([f"x{u}" for u in range(5)], list(range(5)), [1000 + u for u in range(5)], shown=lists)
    assert set(labels_of(joiner, DAY_MS)) == {(3, 1003), (4, 1004)}
    assert joiner.counts()["evicted_waiting"] == 3
