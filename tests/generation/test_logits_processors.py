"""Logits processors agree with those of transformers, including ties, extremes and bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import functrain as ft
from functrain import generation
from functrain.generation import logits_processors as processors

INF = float("inf")
# Few values, so that ties are common, and some at the limits of float32.
values = st.sampled_from(
    [-INF, -3e38, -80.0, -1.0, -0.0, 0.0, 0.5, 1.0, 1.5, 80.0, 3e38]
) | st.floats(-10, 10, width=32)
proportions = st.sampled_from([0.0, 1e-7, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)


# Our processors by name: the class of transformers, and the values to try.
WARPERS = {
    "temperature": ("TemperatureLogitsWarper", st.floats(1e-3, 100)),
    "top_k": ("TopKLogitsWarper", st.integers(1, 12)),
    "top_p": ("TopPLogitsWarper", proportions.filter(lambda p: p < 1)),
    "min_p": ("MinPLogitsWarper", proportions),
}
RULES = {
    "repetition_penalty": ("RepetitionPenaltyLogitsProcessor", st.floats(0.1, 10)),
    "no_repeat_ngram": ("NoRepeatNGramLogitsProcessor", st.integers(1, 5)),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draw logits [batch, vocabulary] with no row of only -inf, and texts [batch, n]."""
    batch, vocabulary = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    rows = st.lists(values, min_size=vocabulary, max_size=vocabulary).filter(
        lambda r: max(r) > -INF
    )
    logits = torch.tensor(draw(st.lists(rows, min_size=batch, max_size=batch)))
    length = draw(st.integers(1, 8))
    # One token beyond the vocabulary: some models read more than they predict.
    text = st.lists(st.integers(0, vocabulary), min_size=length, max_size=length)
    return logits, torch.tensor(draw(st.lists(text, min_size=batch, max_size=batch)))


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def oracle() -> Any:
    pytest.importorskip("transformers")
    from transformers.generation import logits_process

    return logits_process


@pytest.mark.row(45)
class TestAgainstTransformers:
    @pytest.mark.parametrize("name", WARPERS)
    @settings(deadline=None)
    @given(case=cases(), data=st.data())
    def test_of_logits_alone(self, oracle: Any, name: str, case: Any, data: Any) -> None:
        (logits, tokens), (theirs, values) = case, WARPERS[name]
        value = data.draw(values)
        expected = getattr(oracle, theirs)(value)(tokens, logits.clone())
        same(getattr(processors, name)(logits, value), expected)

    def test_ties_of_top_p(self, oracle: Any) -> None:
        logits, tokens = torch.zeros(2, 4), torch.zeros(2, 1, dtype=torch.int64)
        same(processors.top_p(logits, 0.5), oracle.TopPLogitsWarper(0.5)(tokens, logits.clone()))

    @pytest.mark.parametrize("name", RULES)
    @settings(deadline=None)
    @given(case=cases(), data=st.data())
    def test_of_logits_and_text(self, oracle: Any, name: str, case: Any, data: Any) -> None:
        (logits, tokens), (theirs, values) = case, RULES[name]
        value = data.draw(values)
        expected = getattr(oracle, theirs)(value)(tokens, logits.clone())
        same(getattr(processors, name)(logits, tokens, value), expected)

    @settings(deadline=None)
    @given(
        case=cases(),
        options=st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.floats(0.1, 5),
                "top_k": st.integers(0, 12),
                "top_p": proportions,
                "min_p": proportions,
                "repetition_penalty": st.floats(0.5, 2),
                "no_repeat_ngram_size": st.integers(0, 4),
            },
        ),
    )
    def test_all_processors_in_the_order_of_transformers(
        self, composed: Callable[..., Any], case: Any, options: dict[str, Any]
    ) -> None:
        logits, tokens = case
        theirs = composed(options)(tokens, logits.clone())
        same(generation.Sampler(**options).processed(logits, tokens), theirs)


@pytest.fixture(scope="module")
def composed() -> Callable[..., Any]:
    """Return the processors that ``generate`` of transformers makes from its options."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=8, n_embd=4, n_layer=1, n_head=1, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)

    def make(options: dict[str, Any]) -> Any:
        chosen = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options}
        asked = transformers.GenerationConfig(do_sample=True, num_beams=1, **chosen)
        return model._get_logits_processor(
            generation_config=asked, input_ids_seq_length=4, device="cpu"
        )

    return make


@pytest.mark.row(45)
class TestBounds:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]])

    def test_top_k_may_exceed_the_vocabulary_and_0_keeps_all(self) -> None:
        for k in (0, 4, 99):
            assert torch.equal(processors.top_k(self.logits, k), self.logits)

    def test_ties_with_the_kth_are_kept(self) -> None:
        assert processors.top_k(self.logits, 1).tolist() == [[-INF, 3, 3, -INF]]

    def test_top_p_0_keeps_the_most_likely_and_1_keeps_all(self) -> None:
        assert torch.isfinite(processors.top_p(self.logits, 0)).sum() == 1
        tiny = torch.tensor([[0.0, -200.0]])
        assert torch.equal(processors.top_p(tiny, 1), tiny)

    def test_the_penalty_counts_a_token_once(self) -> None:
        logits = torch.tensor([2.0, -2.0, 1.0])
        for tokens in ([0, 1], [0, 0, 0, 1], [1, 0, 1, 0, 1]):
            found = processors.repetition_penalty(logits, torch.tensor(tokens), 2.0)
            assert found.tolist() == [1.0, -4.0, 1.0]

    def test_top_p_reached_exactly_keeps_no_further_token(self) -> None:
        even = torch.zeros(1, 4)
        assert [
            int(torch.isfinite(processors.top_p(even, p)).sum()) for p in (0.25, 0.5, 0.51)
        ] == [1, 2, 3]

    def test_no_processor_changes_its_input(self) -> None:
        logits, tokens = self.logits.clone(), torch.tensor([[1, 2, 1]])
        sampler = generation.Sampler(0.5, 2, 0.5, 0.5, 2.0, 2)
        sampler.processed(logits, tokens)
        assert torch.equal(logits, self.logits)

    def test_rows_are_independent(self) -> None:
        logits = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
        tokens = torch.randint(0, 20, (5, 9), generator=torch.Generator().manual_seed(1))
        sampler = generation.Sampler(0.7, 9, 0.9, 0.01, 1.3, 2)
        alone = [sampler.processed(logits[i], tokens[i]) for i in range(5)]
        assert torch.equal(sampler.processed(logits, tokens), torch.stack(alone))

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("temperature", -1, "temperature: expected a number >= 0, got -1"),
            ("temperature", float("nan"), "temperature: expected a number >= 0, got nan"),
            ("top_k", -1, "top_k: expected an integer >= 0 or None, got -1"),
            ("top_k", 2.5, "top_k: expected an integer >= 0 or None, got 2.5"),
            ("top_p", 1.1, "top_p: expected a number from 0 to 1 or None, got 1.1"),
            ("min_p", -0.1, "min_p: expected a number from 0 to 1 or None, got -0.1"),
            ("repetition_penalty", 0, "repetition_penalty: expected a number above 0, got 0"),
            ("no_repeat_ngram_size", True, "expected an integer >= 0 or None, got True"),
            ("top_p", "0.9", "top_p: expected a number from 0 to 1 or None, got '0.9'"),
        ],
    )
    def test_a_value_out_of_range_is_an_error(self, option: str, value: Any, message: str) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match=message):
            generation.Sampler(**{option: value})

    def test_processors_check_their_range(self) -> None:
        for rule, value in (
            (processors.top_k, -1),
            (processors.top_p, 2),
            (processors.min_p, 2),
            (processors.temperature, 0),
        ):
            with pytest.raises(ft.errors.ConfigurationError):
                rule(self.logits, value)
