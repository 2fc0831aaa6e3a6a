"""A version that stands still scores as the learner did at the tick of its copy."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.learn import frozen
from stream_rec.learn.query_side import Users
from stream_rec.learn.scoring import Catalogue
from stream_rec.loop import Loop
from stream_rec.replay import run_replay
from tests.model.tiny import tiny_encoder_folder
from tests.shop_files import small_settings, write_shop

WHOLE = 1 << 30
N_USERS = 12


class Seen(Exception):
    """The tick that is looked at was committed."""


@pytest.fixture(scope="module", params=["none", "tiny"])
def served(request, tmp_path_factory):
    """The pipeline after the promotion of its second version, and a scorer made from copies of that tick."""
    out = tmp_path_factory.mktemp("run")
    events, items = write_shop(tmp_path_factory.mktemp("shop"))
    encoder = "none" if request.param == "none" else tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))
    settings = small_settings(out, f"model.encoder={encoder}", "model.adapter_layers=0")
    held = []
    after = Loop.after_commit

    def watching(self, tick, effects):
        after(self, tick, effects)
        if self.pipeline.learner.versions.progress.n_promotions == 2:
            held.append(self.pipeline)
            raise Seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "after_commit", watching)
        with pytest.raises(Seen):
            run_replay(settings, events=events, items=items)
    pipeline = held[0]
    items = pipeline.facts.items
    columns = frozen.copied(pipeline.learner, items, pipeline.facts.searches.queries, frozen.Spare())
    weights = pipeline.learner.versions.tensors("champion")
    return pipeline, columns, weights


def scorer_of(served):
    pipeline, columns, weights = served
    small = frozen.compacted(columns, WHOLE)
    return frozen.FrozenScorer(weights, small, lambda: pipeline.learner.tower.encoder)


def published(pipeline, rows, now_ms, k=20):
    """(item, score) of slates as the pipeline would publish them."""
    facts, learner = pipeline.facts, pipeline.learner
    catalogue = Catalogue(facts.items.n, facts.items.servable(), facts.items.born[: facts.items.n])
    users = facts.users
    pointer = np.array([-1 if row is None else users.last_row[row] for row in rows], np.int64)
    visit = np.array(
        [-1 if row is None or not is_open(users, row, now_ms) else users.visit_serial[row] for row in rows]
    )
    ranked = learner.rank(pointer, visit, facts.histories, now_ms=now_ms, catalogue=catalogue, k=k)
    return [
        [(facts.items.ids[item], float(score)) for item, score in zip(one, scores, strict=True) if item >= 0]
        for one, scores in zip(ranked.items.tolist(), ranked.scores, strict=True)
    ]


def is_open(users, row, now_ms):
    return now_ms - users.visit_last_ms[row] <= 1_800_000


def asked_of(pipeline, row, now_ms):
    """What a person would say of a user."""
    facts = pipeline.facts
    if row is None:
        return frozen.Asked((), (), now_ms)
    got = facts.histories.gather(np.array([facts.users.last_row[row]]), 256, facts.items.born[: facts.items.n])
    taken = [
        frozen.Taken(facts.items.ids[item], int(at_ms), str(visit))
        for item, at_ms, visit in zip(got.item[0].tolist(), got.at_ms[0], got.visit[0], strict=True)
        if item >= 0
    ]
    visit = str(facts.users.visit_serial[row]) if is_open(facts.users, row, now_ms) else "none is open"
    return frozen.Asked(taken[::-1], (), now_ms, visit)


def test_scores_are_those_of_the_worker(served):
    pipeline = served[0]
    now_ms = pipeline.positions.record_time_ms()
    known = np.flatnonzero(pipeline.facts.users.last_row[: pipeline.facts.users.n_rows] >= 0)[:N_USERS].tolist()
    rows = [None, *known]
    assert len(rows) > N_USERS / 2
    scorer = scorer_of(served)
    ranked = scorer.rank([asked_of(pipeline, row, now_ms) for row in rows], 20)
    for mine, theirs in zip(ranked, published(pipeline, rows, now_ms), strict=True):
        np.testing.assert_allclose([s for _, s in mine], [s for _, s in theirs], rtol=1e-5, atol=1e-5)
        assert len({i for i, _ in mine} & {i for i, _ in theirs}) >= len(theirs) - 1


def test_scores_for_queries_are_those_of_the_worker(served):
    pipeline, side = served[0], served[0]._search.side
    facts, now_ms = pipeline.facts, pipeline.positions.record_time_ms()
    queries, users = facts.searches.queries, facts.users
    known = np.flatnonzero(users.last_row[: users.n_rows] >= 0)[:N_USERS].tolist()
    asked = np.argsort(-side.items.n[: queries.n_rows].sum(axis=1))[: len(known)].astype(np.int32)
    assert side.items.n[asked[0]].sum() > 1
    catalogue = Catalogue(facts.items.n, facts.items.servable(), facts.items.born[: facts.items.n])
    visit = np.array([users.visit_serial[row] if is_open(users, row, now_ms) else -1 for row in known])
    of = Users(users.last_row[known], visit, np.full(len(known), now_ms), asked)
    theirs = side.rank(of, facts.histories, catalogue=catalogue, k=20)
    told = [asked_of(pipeline, row, now_ms) for row in known]
    mine = scorer_of(served).rank(
        [one._replace(query=f" {queries.texts[q].upper()} ") for one, q in zip(told, asked.tolist(), strict=True)], 20
    )
    for ranked, items, scores in zip(mine, theirs.items, theirs.scores, strict=True):
        np.testing.assert_allclose([score for _, score in ranked], scores, rtol=1e-5, atol=1e-5)
        assert len({item for item, _ in ranked} & {facts.items.ids[row] for row in items.tolist()}) >= 19


def test_a_version_logged_before_it_knew_queries_still_ranks_users(served):
    pipeline, columns, weights = served
    whole, now_ms = frozen.compacted(columns, WHOLE), pipeline.positions.record_time_ms()
    old = {name: column for name, column in whole.items() if name != "titles" and not name.startswith("queries.")}
    scorer = frozen.FrozenScorer(weights, old, lambda: pipeline.learner.tower.encoder)
    assert scorer.rank([frozen.Asked((), (), now_ms)], 3)[0]
    with pytest.raises(ValueError, match="logged without what answers queries"):
        scorer.rank([frozen.Asked((), (), now_ms, query="jug")], 3)


def test_a_query_that_nobody_asked_yet_is_answered_by_what_the_titles_say(served):
    pipeline, columns, _ = served
    titled = next(row for row, title in enumerate(columns["titles"]) if title and columns["servable"][row])
    now_ms = pipeline.positions.record_time_ms()
    query = columns["titles"][titled] + " zzz"
    (ranked,) = scorer_of(served).rank([frozen.Asked((), (), now_ms, query=query)], 10)
    assert columns["item_ids"][titled] in [item for item, _ in ranked]


def test_what_people_typed_is_not_kept(served):
    columns = frozen.compacted(served[1], WHOLE)
    assert served[1]["queries.text"]
    assert "queries.text" not in columns
    assert columns["queries.digest"].dtype == np.uint64


def test_a_query_goes_through_the_adapter_that_lies_in_the_weights(tmp_path):
    from stream_rec.model.encoder import Encoder

    encoder = Encoder(tiny_encoder_folder(tmp_path), revision="r")
    adapter = {name: part + np.float32(0.1) for name, part in encoder.initial_adapter(0).items()}
    weights = {f"adapter.{name}": part for name, part in adapter.items()}
    made = frozen.encoder_in(str(tmp_path), {"": {"encoder": encoder.made_as()}})
    told = frozen._embedder(weights, lambda: made)(["red jug"])
    np.testing.assert_array_equal(told, encoder.embed(["red jug"], adapter))
    assert not np.allclose(told, encoder.embed(["red jug"]))


def test_candidates_are_ranked_alone_and_an_unknown_one_goes_last(served):
    pipeline, scorer = served[0], scorer_of(served)
    now_ms = pipeline.positions.record_time_ms()
    whole = dict(scorer.rank([frozen.Asked((), (), now_ms)], 1_000)[0])
    chosen = list(whole)[5:8]
    ranked = scorer.rank([frozen.Asked((), ["not there", *chosen[::-1]], now_ms)], 20)[0]
    assert ranked == [*((item, whole[item]) for item in chosen), ("not there", None)]


def test_pairs_are_bounded_by_keeping_the_strongest(served):
    columns = served[1]
    whole, small = frozen.compacted(columns, WHOLE), frozen.compacted(columns, 4_000)
    assert whole[""]["partners"] is None
    limit = small[""]["partners"]
    for name in frozen.PAIRS:
        assert np.diff(small[f"{name}.starts"]).max() <= limit
        row = int(np.argmax(np.diff(whole[f"{name}.starts"])))
        of_row = slice(*whole[f"{name}.starts"][row : row + 2])
        kept = slice(*small[f"{name}.starts"][row : row + 2])
        best = np.sort(whole[f"{name}.strength"][of_row])[::-1][:limit]
        assert np.sort(small[f"{name}.strength"][kept])[::-1].tolist() == best.tolist()


def test_what_comes_after_the_time_asked_for_is_not_seen(served):
    pipeline, columns, _ = served
    scorer = scorer_of(served)
    now_ms, item_id = pipeline.positions.record_time_ms(), columns["item_ids"][0]
    later = frozen.Asked([frozen.Taken(item_id, now_ms + 1, "")], (), now_ms)
    np.testing.assert_array_equal(scorer.logits([later]), scorer.logits([frozen.Asked((), (), now_ms)]))
