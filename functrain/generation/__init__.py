"""Generate text with a language model: logits processors, a sampler and pure decoding.

sampler = Sampler(temperature=0.8, top_p=0.95)
text = generate(program, state, prompt, 100, sampler=sampler, seed=0)
for row, token in stream(program, state, [first, second], 100):
    ...
"""

from functrain.generation.cache import Cached
from functrain.generation.decoding import Drawn, generate, stream
from functrain.generation.hugging_face import HuggingFace
from functrain.generation.logits_processors import (
    min_p,
    no_repeat_ngram,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
)
from functrain.generation.multinomial import draw, uniforms
from functrain.generation.sampler import Sampler
from functrain.generation.stop_texts import until

__all__ = [
    "Cached",
    "Drawn",
    "HuggingFace",
    "Sampler",
    "draw",
    "generate",
    "min_p",
    "no_repeat_ngram",
    "repetition_penalty",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "uniforms",
    "until",
]
