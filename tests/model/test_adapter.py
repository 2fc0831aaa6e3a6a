"""The adapter's trainer: one vector, AdamW by the book, and nothing that a checkpoint does not carry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_rec.component import digest
from stream_rec.model.adapter import AdapterRates, AdapterTrainer
from stream_rec.model.encoder import Encoder
from stream_rec.model.trunk_cache import TrunkCache
from tests.model.tiny import WIDTH, tiny_encoder_folder, titles

TEXTS = titles(40)
GOAL = torch.nn.functional.normalize(torch.sin(torch.arange(40.0 * WIDTH)).reshape(40, WIDTH), dim=1)
PLAIN = AdapterRates(rate=0.01, warm_up=0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))
    return Encoder(folder, revision="r", cache=TrunkCache(max_bytes=1 << 20))


def loss(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(vectors @ GOAL.T, torch.arange(len(vectors)))


def learned(encoder: Encoder, rates: AdapterRates, n: int, *, seed: int = 1) -> AdapterTrainer:
    trainer = AdapterTrainer(encoder, rates, seed=seed)
    for _ in range(n):
        trainer.step(TEXTS, loss)
    return trainer


def test_steps_bring_the_loss_down(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, PLAIN)
    losses = [trainer.step(TEXTS, loss) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.05


def test_a_step_is_torchs_adamw(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, AdapterRates(rate=0.01, decay=0.1, warm_up=0, clip=0.05), seed=3)
    theirs = {name: value.requires_grad_() for name, value in encoder.tensors(trainer.adapter()).items()}
    optimiser = torch.optim.AdamW(theirs.values(), lr=0.01, weight_decay=0.1)
    for _ in range(4):
        trainer.step(TEXTS, loss)
        optimiser.zero_grad()
        loss(encoder.forward(TEXTS, theirs)).backward()
        torch.nn.utils.clip_grad_norm_(theirs.values(), 0.05)
        optimiser.step()
    for name, value in trainer.adapter().items():
        assert np.abs(value - theirs[name].detach().numpy()).max() < 1e-4, name


@pytest.mark.parametrize("rates", [PLAIN, PLAIN._replace(dropout=0.3), PLAIN._replace(accumulate=2)])
def test_snapshot_and_restore_between_steps_is_never_stopped(encoder: Encoder, rates: AdapterRates) -> None:
    whole = learned(encoder, rates, 5)
    restored = AdapterTrainer(encoder, rates, seed=1)
    restored.restore(learned(encoder, rates, 3).snapshot())
    for _ in range(2):
        restored.step(TEXTS, loss)
    assert digest(restored.snapshot()) == digest(whole.snapshot())


def test_dropout_depends_on_seed_and_step_alone(encoder: Encoder) -> None:
    rates = PLAIN._replace(dropout=0.3)
    one, other = learned(encoder, rates, 2), learned(encoder, rates, 2, seed=2)
    torch.manual_seed(99)
    assert np.array_equal(one.value, learned(encoder, rates, 2).value)
    start = one.encoder.initial_adapter(1)
    other.start(start)
    one.start(start)
    assert one.step(TEXTS, loss) == other.step(TEXTS, loss)  # B is zero, so what A sees changes nothing yet
    assert not np.array_equal(one.value, other.value)


def test_accumulated_micro_batches_are_one_step_on_their_mean(encoder: Encoder) -> None:
    twice, once = learned(encoder, PLAIN._replace(accumulate=2), 2), learned(encoder, PLAIN, 1)
    assert twice.n_steps == once.n_steps == 1
    assert np.abs(twice.value - once.value).max() < 1e-6


def test_the_first_steps_are_small(encoder: Encoder) -> None:
    start = AdapterTrainer(encoder, PLAIN, seed=1).value
    full, warm = learned(encoder, PLAIN, 1), learned(encoder, PLAIN._replace(warm_up=10), 1)
    assert np.allclose(10 * (warm.value - start), full.value - start, atol=1e-6)


def test_a_gradient_that_is_no_number_is_left_out_and_counted(encoder: Encoder) -> None:
    trainer = learned(encoder, PLAIN, 1)
    before = trainer.value.copy()
    trainer.step(TEXTS, lambda vectors: vectors.sum() * float("nan"))
    assert trainer.n_skipped == 1
    assert np.array_equal(trainer.value, before)
    trainer.step(TEXTS, loss)
    assert np.isfinite(trainer.value).all()


def test_equal_texts_are_rows_of_one_vector(encoder: Encoder) -> None:
    trainer = AdapterTrainer(encoder, PLAIN)
    vectors, _ = trainer.forward([TEXTS[5], TEXTS[6], TEXTS[5]])
    assert torch.equal(vectors[0], vectors[2])
    assert not torch.equal(vectors[0], vectors[1])
