"""Defects of a step: purity, accumulation, clipping, averages, optimizers."""

from __future__ import annotations

from .defect import defect

PURITY = (
    defect(
        "the global random generator is not put back",
        "core/rng.py",
        "                one.set_state(state)\n            if moved",
        "                del state\n            if moved",
        "purity: a_step_is_pure",
    ),
    defect(
        "old and new state share the optimizer's tensors",
        "core/step.py",
        '        "optimizer": copy(state["optimizer"]),\n',
        '        "optimizer": state["optimizer"],\n',
        "purity: a_step_is_pure",
    ),
    defect(
        "the forward writes into the buffers of the old state",
        "core/gradients.py",
        'own = {path: buffer.clone() for path, buffer in state["buffers"].items()}',
        'own = dict(state["buffers"])',
        "purity: a_step_is_pure",
    ),
    defect(
        "a fork shares its memory",
        "training/forking.py",
        "    copied = copy(state)\n",
        "    copied = state\n",
        "purity: forks_are_independent",
    ),
    defect(
        "a state that is held is donated",
        "training/loop.py",
        "if is_lent(session.train) else",
        "if False else",
        "run: held_states_keep_their_values",
    ),
    defect(
        "every step draws what the first draws",
        "core/program.py",
        'rng.stream("step", number), Donation',
        'rng.stream("step", 0), Donation',
        "run: every_step_draws_different_numbers",
    ),
)

STEP = (
    defect(
        "accumulated gradients are not clipped",
        "core/step.py",
        "clipped(found.grads, recipe.clip_norm,",
        "clipped(found.grads, None if recipe.accumulate > 1 else recipe.clip_norm,",
        "accumulation: micro_batches_are_one_batch_of_plain_pytorch",
    ),
    defect(
        "micro-batches weigh alike",
        "core/accumulation.py",
        "            weight = loss_output.weight_of(batch)\n",
        "            weight = torch.ones(())\n",
        "accumulation: micro_batches_are_one_batch_of_plain_pytorch",
    ),
    defect(
        "micro-batches count as steps",
        "core/state.py",
        "            step=self.step + (given.samples > 0),\n",
        "            step=self.step + len(given.parts),\n",
        "accumulation: a_split_batch_equals_the_whole",
    ),
    defect(
        "the first update of the average does not copy",
        "core/ema.py",
        "        return torch.where(updates == 0, 1.0, 1.0 - decay)\n",
        "        return 1.0 - decay\n",
        "accumulation: the_average_equals_a_plain_loop",
    ),
    defect(
        "the average moves at every step",
        "core/ema.py",
        "        return step % self.every == 0\n",
        "        return step > 0\n",
        "accumulation: the_average_equals_a_plain_loop",
    ),
    defect(
        "a step that is not finite is made all the same",
        "core/step.py",
        '            finite = outputs["finite"] = kernels.finite(recipe, outputs)\n',
        '            finite = outputs["finite"] = True\n',
        "run: skipped_steps_leave_no_trace",
    ),
    defect(
        "eps is ignored",
        "optim/methods/adam.py",
        " / bias_correction2**0.5 + adam.eps\n",
        " / bias_correction2**0.5 + 1e-8\n",
        "from_torch: every_option_counts_as_in_torch",
    ),
    defect(
        "torch's optimizer is given the rate that it was made with",
        "optim/from_torch.py",
        "        if lr is not None:\n            built.param",
        "        if lr is None:\n            built.param",
        "from_torch: it_equals_the_class_itself",
    ),
)
