"""What searches teach the adapter: its losses by the book, fresh rows only, cosines as before the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_rec.model import search_adapter
from stream_rec.model.adapter import AdapterRates, AdapterTrainer
from stream_rec.model.encoder import Encoder
from stream_rec.model.search_adapter import SHARPNESS, Shown, click_loss, in_batch_loss
from stream_rec.model.search_clicks import Line
from stream_rec.model.trunk_cache import TrunkCache
from tests.model.tiny import tiny_encoder_folder, titles

TITLES = titles(24)
SHOWN = Shown(
    ["red jug", "wood chair", "x9"], TITLES, np.repeat(np.arange(3), 8), np.arange(24) % 3 == 0
)  # eight items a search, of which two or three were clicked
LINE = Line(4.0, np.linspace(-2, 0, 24, dtype=np.float32))
FREE = np.zeros(24, np.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))
    return Encoder(folder, revision="r", cache=TrunkCache(max_bytes=1 << 20))


def vectors(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    told = torch.from_numpy(encoder.embed(SHOWN.texts))
    return told[:3], told[3:]


def test_the_click_loss_is_the_books(encoder: Encoder) -> None:
    query, title = (each.numpy() for each in vectors(encoder))
    logit = LINE.slope * (query[SHOWN.search] * title).sum(1) + LINE.rest
    book = np.mean(np.logaddexp(0, np.where(SHOWN.clicked, -logit, logit)))
    assert np.isclose(float(click_loss(SHOWN, LINE)(*vectors(encoder))), book, atol=1e-5)


def test_the_in_batch_loss_is_the_books_without_other_clicks_of_the_query(encoder: Encoder) -> None:
    log_q = np.log(np.linspace(0.1, 0.9, 24, dtype=np.float32))
    query, title = (each.numpy().astype(np.float64) for each in vectors(encoder))
    told = []
    for own in np.flatnonzero(SHOWN.clicked):
        rivals = [j for j in range(24) if j == own or not (SHOWN.clicked[j] and SHOWN.search[j] == SHOWN.search[own])]
        logit = SHARPNESS * title @ query[SHOWN.search[own]] - log_q
        told.append(np.log(np.exp(logit[rivals]).sum()) - logit[own])
    assert np.isclose(float(in_batch_loss(SHOWN, log_q)(*vectors(encoder))), np.mean(told), atol=1e-4)


@pytest.mark.parametrize("loss", [click_loss(SHOWN, LINE), in_batch_loss(SHOWN, FREE)])
def test_learning_brings_the_loss_down(encoder: Encoder, loss: search_adapter.Loss) -> None:
    trainer = AdapterTrainer(encoder, AdapterRates(rate=0.01, warm_up=0))
    losses = [search_adapter.step(trainer, SHOWN, loss)[1] for _ in range(30)]
    assert losses[-1] < losses[0] - 0.02


def test_a_step_gives_the_cosines_of_before_it(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, AdapterRates(rate=0.01, warm_up=0))
    search_adapter.step(trainer, SHOWN, click_loss(SHOWN, LINE))
    expected = search_adapter.cosines(encoder, SHOWN, trainer.adapter())
    told, _ = search_adapter.step(trainer, SHOWN, click_loss(SHOWN, LINE))
    assert np.allclose(told, expected, atol=1e-5)
    assert not np.allclose(told, search_adapter.cosines(encoder, SHOWN, trainer.adapter()), atol=1e-5)


def test_a_title_shown_twice_is_one_row_of_the_encoder_and_a_rival_of_each_search(encoder: Encoder) -> None:
    twice = SHOWN._replace(titles=[*TITLES[:23], TITLES[0]])
    found = search_adapter.cosines(encoder, twice)
    query = encoder.embed(SHOWN.queries)
    assert np.isclose(found[23], query[2] @ encoder.embed([TITLES[0]])[0], atol=1e-6)


def test_without_a_click_the_in_batch_loss_teaches_nothing(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, AdapterRates(decay=0.0))
    before = trainer.value.copy()
    none = SHOWN._replace(clicked=np.zeros(24, np.bool_))
    assert search_adapter.step(trainer, none, in_batch_loss(none, FREE))[1] == 0
    assert np.array_equal(trainer.value, before)


def test_a_flat_line_teaches_the_encoder_nothing(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, AdapterRates(decay=0.0))
    before = trainer.value.copy()
    search_adapter.step(trainer, SHOWN, click_loss(SHOWN, LINE._replace(slope=0.0)))
    assert np.array_equal(trainer.value, before)
