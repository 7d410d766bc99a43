"""Drawing a token: distribution, greedy choice and invalid logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import generation
from functrain.generation import Sampler, draw, uniforms

INF = float("inf")
LAST = 1 - 2**-53
text = torch.zeros(1, 1, dtype=torch.int64)


@pytest.mark.row(45)
class TestDraw:
    def test_frequencies_match_the_softmax(self) -> None:
        logits = torch.tensor([1.0, 0.0, -INF, -1.0])
        rows = range(20_000)
        tokens = torch.zeros(len(rows), 1, dtype=torch.int64)
        drawn = Sampler(temperature=2.0)(logits.expand(len(rows), 4), tokens, uniforms(0, rows, 7))
        counts = torch.bincount(drawn, minlength=4)
        expected = (logits.double() / 2).softmax(0) * len(rows)
        assert counts[2] == 0
        stats = pytest.importorskip("scipy.stats")
        kept = [0, 1, 3]
        found = stats.chisquare(counts[kept].double().numpy(), expected[kept].numpy())
        assert found.pvalue > 1e-3

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from([-INF, -1e4, -90.0, 0.0, 1.0, 5.0]), min_size=1, max_size=6
        ).filter(lambda row: max(row) > -INF),
        st.sampled_from([0.0, 2**-53, 0.5, LAST]) | st.floats(0, LAST),
    )
    def test_excluded_tokens_are_never_drawn(self, row: list[float], uniform: float) -> None:
        logits = torch.tensor(row)
        assert logits[draw(logits, torch.tensor(uniform, dtype=torch.float64))] > -INF

    def test_it_inverts_the_cumulative_distribution(self) -> None:
        logits = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).log()
        uniform = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, LAST], dtype=torch.float64)
        assert draw(logits.expand(6, 3), uniform).tolist() == [0, 0, 1, 1, 2, 2]

    def test_random_numbers_are_a_function_of_seed_row_and_position(self) -> None:
        numbers = uniforms(3, [4, 5], 6)
        assert numbers[1] == uniforms(3, [5], 6)[0]
        others = [uniforms(3, [5], 7), uniforms(4, [5], 6), uniforms(3, [6], 6), numbers[:1]]
        assert numbers[1] not in torch.cat(others)
        assert ((numbers >= 0) & (numbers < 1)).all()


@pytest.mark.row(45)
class TestSampler:
    def test_temperature_0_takes_the_first_of_the_largest(self) -> None:
        logits = torch.tensor([[1.0, 3.0, 3.0], [4.0, 0.0, 0.0]])
        for uniform in (0.0, LAST):
            sampler = Sampler(temperature=0, top_k=1, top_p=0.5, min_p=1.0)
            assert sampler(logits, text.expand(2, 1), torch.full((2,), uniform)).tolist() == [1, 0]

    def test_a_temperature_near_0_is_greedy_and_a_large_one_uniform(self) -> None:
        logits = torch.tensor([[1.0, 3.0, 2.0]])
        assert Sampler(temperature=1e-6)(logits, text, torch.tensor([LAST])) == 1
        even = Sampler(temperature=1e30).processed(logits, text).softmax(-1)
        torch.testing.assert_close(even, torch.full((1, 3), 1 / 3))

    @pytest.mark.parametrize("temperature", [0, 1.0])
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ([0.0, float("nan")], "row 1: .* its logits are NaN"),
            ([-INF, -INF], "row 1: .* are -inf everywhere"),
            ([0.0, INF], r"row 1: .* reach \+inf"),
        ],
    )
    def test_logits_without_a_distribution_are_a_clear_error(
        self, temperature: float, row: list[float], reason: str
    ) -> None:
        logits = torch.tensor([[0.0, 1.0], row])
        sampler = Sampler(temperature=temperature, top_k=1, top_p=0.5, min_p=0.5)
        with pytest.raises(ft.errors.LogitsError, match=reason) as caught:
            sampler(logits, text.expand(2, 1), torch.rand(2))
        assert caught.value.row == 1

    def test_processors_that_exclude_all_tokens_are_a_clear_error(self) -> None:
        everything = torch.tensor([[0, 1]])
        with pytest.raises(ft.errors.LogitsError, match="rules of sampling leave no token"):
            Sampler(no_repeat_ngram_size=1)(torch.zeros(1, 2), everything, torch.zeros(1))

    def test_half_precision_is_widened(self) -> None:
        logits = torch.tensor([[1.0, 1.001]], dtype=torch.bfloat16)
        assert Sampler(temperature=0.7).processed(logits, text).dtype == torch.float32

    def test_a_sampler_is_a_value(self) -> None:
        assert Sampler(top_k=3) == Sampler(top_k=3)
        assert len({Sampler(top_p=0.5), Sampler(top_p=0.5), generation.Sampler()}) == 2
