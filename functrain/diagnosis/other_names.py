"""Names that users of other libraries look for, and what stands for each here."""

from __future__ import annotations

_ONE_STEP = "state, metrics = program.train_step(state, batch), which is the whole step"
_FILE = "state.params; functrain.save(path, state) writes a file"
_MODEL = "with program.evaluating(state) as model: model(x)"
# On a program: the call that stands for each name.
PROGRAM_ATTRIBUTES = {
    **dict.fromkeys(("zero_grad", "step", "backward", "training_step", "train"), _ONE_STEP),
    **dict.fromkeys(("state_dict", "parameters", "named_parameters", "save"), _FILE),
    **dict.fromkeys(("model", "forward", "predict", "apply"), _MODEL),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), "program.init(device=...)"),
    "load_state_dict": "program.init(params=...), or functrain.load(path, like=state)",
    "eval": "program.eval_step(state, batch)",
    "validation_step": "program.eval_step(state, batch)",
    "fit": 'functrain.fit(program, data, until="10 epochs")',
    "evaluate": "functrain.evaluate(program, state, data)",
    "compile": "functrain.compiled(program)",
    "optimizer": "program.recipe.optimizer",
    "loss": "program.recipe.loss",
}

_TENSORS = "state.params and state.buffers; functrain.save(path, state) writes a file"
# The same for a state.
STATE_ATTRIBUTES = {
    **{name: f"state.counters.{name}" for name in ("step", "epoch", "batch", "samples")},
    "global_step": "state.counters.step",
    "state_dict": _TENSORS,
    "parameters": _TENSORS,
    "load_state_dict": "program.init(params=...), or attrs.evolve(state, params=...)",
    "opt_state": "state.optimizer",
    "apply_gradients": "program.train_step(state, batch)",
    "apply_fn": "with program.evaluating(state) as model",
    "model": "with program.evaluating(state) as model",
    "module": "with program.evaluating(state) as model",
    "replace": "attrs.evolve(state, ...)",
    "copy": "functrain.copy(state)",
    "lr": 'metrics["lr"], which train_step returns',
    "scaler": "state.loss_scale",
    "seed": "state.rng.seed",
    "to": "program.init(device=...)",
    "cuda": "program.init(device=...)",
}
