"""Caches: cached and uncached logits agree, for our GPT and for models of transformers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.examples import chargpt
from functrain.generation import Cached, HuggingFace, Sampler, generate

SAMPLER = Sampler(temperature=1.3, top_p=0.95)


def enlarged(state: ft.TrainState) -> ft.TrainState:
    """Return a state with large weights, so that every layer counts and texts vary."""
    params = {path: value * 8 if value.ndim == 2 else value for path, value in state.params.items()}
    return attrs.evolve(state, params=params)


PROGRAM = ft.program(
    lambda: chargpt.GPT(length=24, width=32, layers=2, heads=4),
    chargpt.loss,
    ft.optim.AdamW(lr=0.01),
)
STATE = enlarged(PROGRAM.init(seed=2))


@attrs.frozen(eq=False)
class Counting:
    """A Cached model that records how many tokens it reads."""

    module: Any
    read: list[int]

    def __call__(self, tokens: Tensor) -> Tensor:
        self.read.append(tokens.shape[1])
        return self.module(tokens)

    def initial_cache(self, batch: int, length: int, device: torch.device) -> Any:
        return self.module.initial_cache(batch, length, device)

    def forward_cached(self, tokens: Tensor, cache: Any) -> Any:
        self.read.append(tokens.shape[1])
        return self.module.forward_cached(tokens, cache)


@pytest.mark.row(45)
class TestChargpt:
    def test_cached_is_uncached_token_by_token(self) -> None:
        tokens = torch.randint(0, 96, (3, 24), generator=torch.Generator().manual_seed(0))
        with PROGRAM.evaluating(STATE) as model:
            assert isinstance(model, Cached)
            cache = model.initial_cache(3, 24, torch.device("cpu"))
            for place in range(24):
                logits, cache = model.forward_cached(tokens[:, place : place + 1], cache)
                whole = model(tokens[:, : place + 1])
                torch.testing.assert_close(logits[:, -1], whole[:, -1], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("cuts", [(0, 5, 6, 24), (0, 1, 12, 24), (0, 24)])
    def test_reading_in_chunks(self, cuts: tuple[int, ...]) -> None:
        tokens = torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(1))
        with PROGRAM.evaluating(STATE) as model:
            cache, parts = model.initial_cache(2, 24, torch.device("cpu")), []
            for begin, end in pairwise(cuts):
                logits, cache = model.forward_cached(tokens[:, begin:end], cache)
                parts.append(logits)
            torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=1e-4, atol=1e-4)

    def test_a_cache_is_a_value(self) -> None:
        tokens = torch.arange(6)[None]
        with PROGRAM.evaluating(STATE) as model:
            _, cache = model.forward_cached(tokens[:, :5], ())
            before = ft.copy(cache)
            first, _ = model.forward_cached(tokens[:, 5:], cache)
            second, _ = model.forward_cached(tokens[:, 5:], cache)
            assert tree.diff(before, cache) == []
            assert torch.equal(first, second)

    @pytest.mark.parametrize("length", [10, 40])  # within the window of 24, and far beyond
    def test_texts_equal_those_without_a_cache(self, length: int) -> None:
        prompts = [chargpt.codes("The"), chargpt.codes("When "), chargpt.codes("x")]
        options: Any = {"sampler": SAMPLER, "window": 24, "stop": chargpt.codes("e").tolist()}
        cached = generate(PROGRAM, STATE, prompts, length, **options)
        plain = generate(PROGRAM, STATE, prompts, length, use_cache=False, **options)
        assert [text.tolist() for text in cached] == [text.tolist() for text in plain]

    def test_only_new_tokens_are_read_until_the_window_slides(self) -> None:
        read: list[int] = []
        options: Any = {"adapter": lambda module: Counting(module, read), "window": 10}
        generate(PROGRAM, STATE, chargpt.codes("abcde"), 8, **options)
        assert read == [5, 1, 1, 1, 1, 1, 10, 10]
        read.clear()
        generate(PROGRAM, STATE, chargpt.codes("abcde"), 3, use_cache=False, **options)
        assert read == [5, 6, 7]


@pytest.fixture(scope="module")
def gpt2() -> tuple[Any, ft.Program, ft.TrainState]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=None,
        initializer_range=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.GPT2LMHeadModel(config).eval()

    def loss(model: nn.Module, tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=tokens).loss

    program = ft.program(model, loss, ft.optim.AdamW(lr=0.01))
    return model, program, program.init()


@pytest.mark.row(45)
class TestTransformers:
    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("rules", [{}, {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2}])
    def test_greedy_texts_equal_those_of_transformers(
        self, gpt2: Any, use_cache: bool, rules: dict[str, Any]
    ) -> None:
        model, program, state = gpt2
        prompt = torch.tensor([5, 6, 7])
        theirs = model.generate(
            prompt[None],
            attention_mask=torch.ones(1, 3, dtype=torch.int64),
            max_new_tokens=40,
            do_sample=False,
            **rules,
        )[0]
        sampler = Sampler(temperature=0, **rules)
        options: Any = {"sampler": sampler, "adapter": HuggingFace, "use_cache": use_cache}
        assert generate(program, state, prompt, 40, **options).tolist() == theirs.tolist()
        assert len(set(theirs.tolist())) > 3

    def test_cached_is_uncached(self, gpt2: Any) -> None:
        _, program, state = gpt2
        prompts = [[1, 2, 3], [4, 5], [6, 7]]
        options: Any = {"sampler": SAMPLER, "adapter": HuggingFace, "stop": [9, 10]}
        cached = generate(program, state, prompts, 30, **options)
        plain = generate(program, state, prompts, 30, use_cache=False, **options)
        assert [text.tolist() for text in cached] == [text.tolist() for text in plain]

    def test_its_cache_is_a_value(self, gpt2: Any) -> None:
        _, program, state = gpt2
        with program.evaluating(state) as module:
            model = HuggingFace(module)
            _, cache = model.forward_cached(torch.tensor([[1, 2]]), ())
            before = ft.copy(cache)
            first, _ = model.forward_cached(torch.tensor([[3]]), cache)
            second, _ = model.forward_cached(torch.tensor([[3]]), cache)
            assert tree.diff(before, cache) == []
            assert torch.equal(first, second)
