"""Decoding: purity, batches, streams, stop tokens, windows, and training in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from models import TinyTransformer, predict_next
from torch import Tensor, nn

import functrain as ft
from functrain import errors, tree
from functrain.generation import Drawn, Sampler, generate, stream

pytestmark = pytest.mark.row(45)

# A high temperature, because the tied weights of a new model make it repeat itself.
WARM = Sampler(temperature=20.0)
PROMPT = torch.tensor([1, 2, 3])
WEIGHTS = ("params", "ema")


class Causal(nn.Module):
    """A model with logits that depend on a token and on the mean of the earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.head = nn.Linear(16, 11)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.embed(tokens))
        count = torch.arange(1, tokens.shape[1] + 1)[:, None]
        return self.head(x + x.cumsum(1) / count)


PROGRAM = ft.program(Causal, predict_next, ft.optim.SGD(lr=0.1), ema=0.9)
STATE = PROGRAM.init(seed=1)


class TestPurity:
    def test_state_and_generators_are_unchanged_and_the_seed_decides(self) -> None:
        program = ft.program(TinyTransformer, predict_next, ft.optim.SGD(lr=0.1))
        state = program.init()
        before, stream_before = ft.copy(state), torch.get_rng_state()
        texts = [generate(program, state, PROMPT, 12, seed=s, sampler=WARM) for s in (0, 0, 1)]
        assert torch.equal(texts[0], texts[1])
        assert not torch.equal(texts[0], texts[2])
        assert torch.equal(texts[0][:3], PROMPT)
        assert len(texts[0]) == 15
        assert tree.diff(before, state) == []
        assert torch.equal(stream_before, torch.get_rng_state())

    def test_dropout_is_off(self) -> None:
        text = generate(PROGRAM, STATE, PROMPT, 30, sampler=Sampler(temperature=0))
        with PROGRAM.evaluating(STATE) as model:
            predicted = model(text[None])[0].argmax(-1)
        assert torch.equal(predicted[2:-1], text[3:])

    def test_training_between_two_tokens_changes_nothing(self) -> None:
        batch = {"tokens": torch.arange(10)[None]}
        alone = [token for _, token in stream(PROGRAM, STATE, PROMPT, 8, sampler=WARM)]
        trained = expected = STATE
        beside = []
        for _, token in stream(PROGRAM, STATE, PROMPT, 8, sampler=WARM):
            assert torch.is_grad_enabled()
            beside.append(token)
            trained, _ = PROGRAM.train_step(trained, batch)
        for _ in range(8):
            expected, _ = PROGRAM.train_step(expected, batch)
        assert beside == alone
        assert tree.diff(trained, expected) == []

    def test_an_abandoned_stream_leaves_nothing(self) -> None:
        before = torch.get_rng_state()
        left = stream(PROGRAM, STATE, PROMPT, 8, sampler=WARM)
        first = next(left)
        assert torch.is_grad_enabled()
        assert torch.equal(before, torch.get_rng_state())
        del left
        assert first == next(stream(PROGRAM, STATE, PROMPT, 8, sampler=WARM))

    def test_sampling_at_evaluations_does_not_change_training_bitwise(self, tmp_path: Path) -> None:
        program = ft.program(TinyTransformer, predict_next, ft.optim.AdamW(lr=0.01), ema=0.9)
        tokens = torch.randint(0, 11, (40, 8), generator=torch.Generator().manual_seed(0))
        data = ft.data.Batches({"tokens": tokens}, 8)
        texts: list[Tensor] = []

        class Samples:
            def on_eval_end(self, event: ft.events.EvalEnd) -> None:
                options: Any = {"sampler": WARM, "weights": event.weights}
                texts.append(generate(program, event.state, PROMPT, 5, **options))

        def fitted(name: str, *listeners: object) -> ft.Run:
            return ft.fit(
                program,
                data,
                until="12 steps",
                eval_data=data,
                eval_every="3 steps",
                directory=tmp_path / name,
                listeners=listeners,
            )

        plain, sampled = fitted("plain"), fitted("sampled", Samples())
        assert len(texts) >= 4
        assert tree.diff(plain.state, sampled.state) == []
        assert plain.history.rows == sampled.history.rows


class TestBatches:
    def test_a_text_does_not_depend_on_the_other_texts(self) -> None:
        mine = torch.tensor([4, 5])
        companies: list[list[Any]] = [
            [PROMPT, mine],
            [[7], mine, [8, 9, 10]],
            [[7, 7], mine, [1, 2], [3]],
        ]
        texts = [generate(PROGRAM, STATE, rows, 20, sampler=WARM)[1] for rows in companies]
        assert torch.equal(texts[0], texts[1])
        assert torch.equal(texts[0], texts[2])

    def test_equal_prompts_get_different_texts(self) -> None:
        texts = generate(PROGRAM, STATE, [PROMPT] * 4, 20, sampler=WARM)
        assert len({tuple(text.tolist()) for text in texts}) == 4
        assert torch.equal(texts[0], generate(PROGRAM, STATE, PROMPT, 20, sampler=WARM))

    def test_an_interrupted_text_continues_without_a_difference(self) -> None:
        whole = generate(PROGRAM, STATE, PROMPT, 20, sampler=WARM)
        half = generate(PROGRAM, STATE, PROMPT, 9, sampler=WARM)
        assert torch.equal(generate(PROGRAM, STATE, half, 11, sampler=WARM), whole)

    def test_a_stream_yields_the_tokens_of_generate_in_turn(self) -> None:
        prompts = [PROMPT, torch.tensor([4])]
        texts = generate(PROGRAM, STATE, prompts, 4, sampler=WARM)
        found = list(stream(PROGRAM, STATE, prompts, 4, sampler=WARM))
        assert [drawn.row for drawn in found] == [0, 1] * 4
        for row, prompt in enumerate(prompts):
            assert [token for at, token in found if at == row] == texts[row][len(prompt) :].tolist()
        assert isinstance(found[0], Drawn)


class TestEnds:
    def test_a_stop_token_ends_only_its_text(self) -> None:
        prompts = [PROMPT, torch.tensor([4, 5, 6]), torch.tensor([7])]
        free = generate(PROGRAM, STATE, prompts, 30, sampler=WARM)
        stop = {int(free[0][6]), int(free[2][9])}
        stopped = generate(PROGRAM, STATE, prompts, 30, sampler=WARM, stop=stop)
        for prompt, long, short in zip(prompts, free, stopped, strict=True):
            added = long[len(prompt) :].tolist()
            ends = [place for place, token in enumerate(added) if token in stop]
            kept = len(prompt) + (ends[0] + 1 if ends else 30)
            assert short.tolist() == long[:kept].tolist()
        assert len({len(text) for text in stopped}) > 1

    def test_greedy_with_a_stop_token(self) -> None:
        greedy = Sampler(temperature=0)
        text = generate(PROGRAM, STATE, PROMPT, 5, sampler=greedy)
        for stop in (int(text[3]), text[3], text[3:4], {int(text[3])}):
            stopped = generate(PROGRAM, STATE, PROMPT, 5, sampler=greedy, stop=stop)
            assert stopped.tolist() == text[:4].tolist()

    def test_length_0_returns_the_prompt(self) -> None:
        assert torch.equal(generate(PROGRAM, STATE, PROMPT, 0), PROMPT)

    def test_the_model_sees_the_window(self) -> None:
        text = generate(PROGRAM, STATE, PROMPT, 9, window=4, sampler=Sampler(temperature=0))
        for end in range(3, 12):
            with PROGRAM.evaluating(STATE) as model:
                seen = text[max(0, end - 4) : end]
                assert text[end] == model(seen[None])[0, -1].argmax()

    def test_averaged_weights(self) -> None:
        other = PROGRAM.init(seed=9)
        averaged: Any = {**STATE.ema, "params": other.params}
        both = attrs.evolve(STATE, ema=averaged)
        found = {
            weights: generate(PROGRAM, both, PROMPT, 30, weights=weights) for weights in WEIGHTS
        }
        assert torch.equal(found["params"], generate(PROGRAM, STATE, PROMPT, 30))
        assert torch.equal(found["ema"], generate(PROGRAM, other, PROMPT, 30))
        assert not torch.equal(found["ema"], found["params"])


class TestErrors:
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            (torch.tensor([], dtype=torch.int64), "prompt 0 is empty"),
            ([[1], []], "prompt 1 is empty"),
            ([], "there is no prompt"),
            (torch.ones(2, 3, dtype=torch.int64), r"list\(prompt\)"),
            ([1, 2], "one prompt is given as a tensor"),
            (torch.ones(3), "prompt 0 is of torch.float32, expected tokens"),
            ("text", "prompt 0 is not a row of tokens"),
        ],
    )
    def test_a_bad_prompt_is_an_error(self, prompt: Any, message: str) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match=message):
            stream(PROGRAM, STATE, prompt, 3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"length": -1}, "length: expected an integer >= 0, got -1"),
            ({"length": 1, "window": 0}, "window: expected an integer >= 1, got 0"),
        ],
    )
    def test_bounds_are_checked_before_drawing(self, options: Any, message: str) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match=message):
            stream(PROGRAM, STATE, PROMPT, **options)

    def test_nan_weights_are_an_error_with_the_text(self) -> None:
        params = {**STATE.params, "head.bias": torch.full((11,), float("nan"))}
        broken = PROGRAM.init(params=params)
        with pytest.raises(ft.errors.LogitsError, match=r"row 0: .* NaN"):
            generate(PROGRAM, broken, [[1, 2], [3]], 3)

    def test_an_ended_text_raises_no_error(self) -> None:
        # Once every token has occurred the rule excludes all, but the text ended before.
        sampler = Sampler(temperature=0, no_repeat_ngram_size=1)
        free = generate(PROGRAM, STATE, [[1], [2]], 10, sampler=sampler)
        stopped = generate(PROGRAM, STATE, [[1], [2]], 30, sampler=sampler, stop=range(11))
        assert [text.tolist() for text in stopped] == [text[:2].tolist() for text in free]
        with pytest.raises(ft.errors.LogitsError, match="leave no token"):
            generate(PROGRAM, STATE, [[1], [2]], 11, sampler=sampler)


class TestModels:
    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda logits: (logits, None), "a tuple"),
            (lambda logits: logits[:, -1], r"shape \[1, 11\]"),
            (lambda logits: logits[0], r"shape \[3, 11\]"),
            (lambda logits: logits.transpose(1, 2), "the vocabulary comes first"),
        ],
    )
    def test_what_are_no_logits_is_refused(self, change: Any, found: str) -> None:
        def adapter(model: nn.Module) -> Any:
            return lambda tokens: change(model(tokens))

        with pytest.raises(errors.ModelError, match=f"{found}.*adapter"):
            generate(PROGRAM, STATE, PROMPT, 2, adapter=adapter)

    def test_the_logits_of_the_last_token_alone_will_do(self) -> None:
        def adapter(model: nn.Module) -> Any:
            return lambda tokens: model(tokens)[:, -1:]

        expected = generate(PROGRAM, STATE, PROMPT, 9)
        assert torch.equal(generate(PROGRAM, STATE, PROMPT, 9, adapter=adapter), expected)

    def test_a_token_out_of_range_has_a_note(self) -> None:
        with pytest.raises(IndexError) as caught:
            generate(PROGRAM, STATE, torch.tensor([1, 11]), 2)
        assert caught.value.__notes__[0].startswith("in a text of 2 tokens from 1 to 11; ")
