"""Sampling: the filters by hand and by another library's formulas, and purity."""

from __future__ import annotations

import pytest
import torch
from models import TinyTransformer, predict_next

import functrain as ft
from functrain import generation, tree


@pytest.mark.row(45)
class TestFilters:
    def test_top_k_keeps_exactly_k_also_among_equals(self) -> None:
        logits = torch.tensor([1.0, 2.0, 2.0, 2.0])
        assert torch.isfinite(generation.filtered(logits, top_k=2)).sum() == 2
        assert torch.equal(generation.filtered(logits, top_k=99), logits)

    def test_top_p_keeps_the_fewest_that_suffice(self) -> None:
        logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
        for top_p, kept in ((0.4, 1), (0.6, 2), (0.81, 3), (0.96, 4), (1.0, 4), (0.0, 1)):
            assert torch.isfinite(generation.filtered(logits, top_p=top_p)).sum() == kept, top_p

    def test_the_penalty_counts_a_token_once(self) -> None:
        logits = torch.tensor([2.0, -2.0, 1.0])
        once = generation.penalised(logits, torch.tensor([0, 1]), 2.0)
        often = generation.penalised(logits, torch.tensor([0, 0, 0, 1]), 2.0)
        assert once.tolist() == often.tolist() == [1.0, -4.0, 1.0]

    def test_frequencies_are_those_of_the_softmax(self) -> None:
        logits = torch.tensor([1.0, 0.0, -1.0])
        generator = torch.Generator().manual_seed(0)
        draws = [int(generation.sample(logits, generator, temperature=2.0)) for _ in range(4000)]
        found = torch.bincount(torch.tensor(draws), minlength=3) / 4000
        torch.testing.assert_close(found, (logits / 2).softmax(0), rtol=0, atol=0.03)


@pytest.mark.row(45)
class TestGenerate:
    def test_is_pure_and_a_function_of_the_seed(self) -> None:
        program = ft.program(TinyTransformer, predict_next, ft.optim.SGD(lr=0.1))
        state = program.init()
        before, stream = ft.copy(state), torch.get_rng_state()
        prompt = torch.tensor([1, 2, 3])
        # Warm, because the tied weights of a fresh model make it all but sure of repetition.
        texts = [
            generation.generate(program, state, prompt, 12, seed=s, temperature=20.0)
            for s in (0, 0, 1)
        ]
        assert torch.equal(texts[0], texts[1])
        assert not torch.equal(texts[0], texts[2])
        assert torch.equal(texts[0][:3], prompt)
        assert len(texts[0]) == 15
        assert tree.diff(before, state) == []
        assert torch.equal(stream, torch.get_rng_state())

    def test_greedy_takes_the_largest_and_a_stop_token_ends(self) -> None:
        program = ft.program(TinyTransformer, predict_next, ft.optim.SGD(lr=0.1))
        state = program.init()
        text = generation.generate(program, state, torch.tensor([4]), 5, temperature=0)
        with program.evaluating(state) as model:
            assert text[1] == model(torch.tensor([[4]]))[0, -1].argmax()
        stopped = generation.generate(
            program, state, torch.tensor([4]), 5, temperature=0, stop=int(text[1])
        )
        assert stopped.tolist() == text[:2].tolist()
