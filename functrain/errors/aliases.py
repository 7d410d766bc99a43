"""The names that other libraries give to arguments of functrain, and how to write them here."""

from __future__ import annotations

from typing import Any

import attrs


def plain(name: str) -> str:
    """Return a name without the spelling in which libraries differ.

    Example:
        >>> plain("clip_Norm") == plain("clipnorm")
        True
    """
    return name.replace("_", "").lower()


def _words(text: str) -> frozenset[str]:
    return frozenset(map(plain, text.split()))


@attrs.frozen
class Alias:
    """An argument of functrain with its names elsewhere.

    Attributes:
        name: functrain's, or ``""`` for what is no argument here.
        others: names in Keras, Lightning, the Trainer of Hugging Face and loops by hand.
        write: how to write the argument; ``{}`` stands for a value, with ``9`` as an example.
        place: what takes it, for calls that do not.
    """

    name: str
    others: frozenset[str] = attrs.field(converter=_words)
    write: str = ""
    place: str = ""

    def written(self, name: str, value: Any) -> str:
        """Return the argument as source, with a value if that is short."""
        return _filled(self.write or f"{name}={{}}", value)

    def placed(self, value: Any) -> str:
        """Return what takes the argument, with a value if that is short."""
        return _filled(self.place, value)


def _filled(template: str, value: Any) -> str:
    short = isinstance(value, bool | int | float | str)
    shown = repr(value) if short and '"{}' not in template else str(value) if short else "..."
    return template.replace("{}", shown)


_FIT, _PROGRAM = "functrain.fit(..., {})", "functrain.program(..., {})"


def _of(call: str, name: str, others: str, write: str = "") -> Alias:
    """Return an alias whose argument another call takes under its own name."""
    written = write or f"{name}={{}}"
    return Alias(name, others, write, f"{call.format(written)} takes it")


ALIASES = (
    _of(
        *(_FIT, "until"),
        "epochs epoch max_epochs num_epochs n_epochs nb_epoch num_train_epochs total_epochs",
        'until="{} epochs"',
    ),
    _of(
        *(_FIT, "until"),
        "steps max_steps num_steps n_steps total_steps train_steps training_steps max_iters "
        "iterations num_iterations num_training_steps",
        'until="{} steps"',
    ),
    _of(_FIT, "until", "minutes max_time max_minutes time_limit", 'until="{} minutes"'),
    _of(
        *(_FIT, "data"),
        "x y train_data train_dataset train_loader train_dataloader train_dataloaders dataloader "
        "datamodule loader train_ds trainloader dataset",
    ),
    _of(
        *(_FIT, "eval_data"),
        "validation_data validation_split val_data valid_data val_dataset eval_dataset val_loader "
        "valid_loader eval_loader val_dataloader val_dataloaders eval_dataloader test_data val "
        "valid validation",
    ),
    _of(
        *(_FIT, "eval_every"),
        "validation_freq val_check_interval check_val_every_n_epoch eval_steps eval_strategy "
        "evaluation_strategy eval_interval",
        'eval_every="1 epoch"',
    ),
    _of(
        *(_FIT, "save_every"),
        "save_steps save_strategy save_freq save_interval checkpoint_every every_n_epochs "
        "every_n_train_steps",
        'save_every="1 epoch"',
    ),
    _of(
        *(_FIT, "directory"),
        "output_dir default_root_dir save_dir checkpoint_dir checkpoint_path run_dir log_dir "
        "logging_dir dirpath dir folder path",
    ),
    _of(_FIT, "resume", "ckpt_path resume_from_checkpoint resume_from initial_epoch checkpoint"),
    _of(
        *(_FIT, "listeners"),
        "callbacks callback hooks",
        "listeners=[...]",
    ),
    _of(
        *(_FIT, "listeners"),
        "logger loggers report_to tracker trackers log_with",
        'listeners=[functrain.listeners.TensorBoard("runs/1")]',
    ),
    _of(
        *(_FIT, "progress"),
        "verbose disable_tqdm enable_progress_bar progress_bar show_progress tqdm quiet silent",
        "progress=False",
    ),
    _of(
        *(_FIT, "early_stop"),
        "early_stopping early_stopping_patience early_stopping_rounds stop",
        "early_stop=functrain.EarlyStop(patience=5)",
    ),
    _of(_FIT, "restore_best", "restore_best_weights load_best_model_at_end", "restore_best=True"),
    _of(
        *(_FIT, "sanity_batches"),
        "num_sanity_val_steps sanity_check sanity_val_steps eval_on_start eval_before_training",
        "sanity_batches=2",
    ),
    _of(
        *(_FIT, "limit_train_batches"),
        "fast_dev_run overfit_batches steps_per_epoch max_batches limit_batches batches_per_epoch "
        "epoch_length",
        "limit_train_batches=2, limit_eval_batches=2",
    ),
    _of(
        *(_FIT, "limit_eval_batches"),
        "limit_val_batches limit_test_batches validation_steps eval_batches max_eval_batches",
    ),
    _of(_FIT, "program", "trainer net", "program"),
    Alias(
        "model",
        "net network module model_init",
        place="functrain.program(model, loss, optimizer) takes it",
    ),
    Alias(
        "loss",
        "loss_fn loss_function criterion objective compute_loss",
        place="functrain.program(model, loss, optimizer) takes it",
    ),
    Alias(
        "optimizer",
        "optim opt optimiser optimizers tx",
        place="functrain.program(model, loss, optimizer) takes it",
    ),
    _of(
        *(_PROGRAM, "clip_norm"),
        "clipnorm global_clipnorm max_grad_norm max_norm gradient_clip_val gradient_clip_norm "
        "gradient_clipping grad_clip grad_clip_norm clip_grad_norm clip_gradients clip",
    ),
    _of(_PROGRAM, "clip_value", "clipvalue clip_grad_value gradient_clip_value"),
    _of(
        *(_PROGRAM, "accumulate"),
        "gradient_accumulation_steps accumulate_grad_batches grad_accum grad_accum_steps "
        "gradient_accumulation accumulation_steps accumulation micro_batches",
    ),
    _of(
        *(_PROGRAM, "precision"),
        "fp16 bf16 amp mixed_precision autocast half dtype policy",
        'precision="bf16"',
    ),
    _of(_PROGRAM, "ema", "ema_decay use_ema ema_momentum averaging swa", "ema=0.999"),
    _of(
        *(_PROGRAM, "nonfinite"),
        "skip_nan skip_nonfinite nan terminate_on_nan check_finite",
        'nonfinite="skip"',
    ),
    _of(
        *(_PROGRAM, "trainable"),
        "freeze frozen freeze_layers unfreeze trainable_params params_to_train",
        'trainable=["head.*"]',
    ),
    _of(_PROGRAM, "evaluate", "eval_fn eval_loss evaluation eval_step test_step", "evaluate=..."),
    Alias(
        "lr",
        "learning_rate base_lr initial_lr initial_learning_rate init_lr step_size alpha start_lr "
        "max_lr peak_lr init_value",
        place="the optimizer takes it, functrain.optim.AdamW(lr={})",
    ),
    Alias(
        "lr",
        "scheduler lr_scheduler lr_schedule schedule lr_scheduler_type",
        "lr=functrain.schedules.Cosine(1e-3)",
        "the optimizer takes it, functrain.optim.AdamW(lr=functrain.schedules.Cosine(1e-3))",
    ),
    Alias(
        "betas",
        "beta beta1 beta2 beta_1 beta_2 b1 b2 adam_beta1 adam_beta2",
        "betas=(0.9, 0.999)",
        "the optimizer takes it, functrain.optim.AdamW(betas=(0.9, 0.999))",
    ),
    Alias(
        "weight_decay",
        "wd decay l2 l2_penalty decoupled_weight_decay",
        place="the optimizer takes it, functrain.optim.AdamW(weight_decay={})",
    ),
    Alias("eps", "epsilon adam_epsilon eps_root"),
    Alias("momentum", "mom beta beta1"),
    Alias("rho", "decay"),
    Alias(
        "",
        "params parameters",
        place="the program gives the optimizer the parameters of its model, so leave it out",
    ),
    Alias(
        "",
        "foreach fused capturable differentiable jit_compile",
        place="it does not change results; leave it out, and use functrain.compiled(program)",
    ),
    Alias(
        "",
        "compile torch_compile jit compiled",
        place="a transformation does it, functrain.compiled(program)",
    ),
    Alias(
        "",
        "donate donated inplace",
        place="a transformation does it, functrain.donated(program)",
    ),
    Alias(
        "",
        "accelerator devices gpus num_gpus use_cpu cuda strategy num_nodes distributed ddp fsdp "
        "num_processes",
        place="a run is where its state is, state=program.init(device=...); several processes "
        "train functrain.sharded(program) under torchrun",
    ),
    Alias(
        "device",
        "map_location to accelerator",
        place="a run is where its state is, state=program.init(device={})",
    ),
    Alias(
        "",
        "metrics metric compute_metrics metric_fns",
        place="the loss returns them, functrain.Loss(value, metrics={...})",
    ),
    Alias(
        "seed",
        "random_state random_seed rng manual_seed generator key",
        place="program.init(seed={}), functrain.fit(..., seed={}) or functrain.data.Batches(..., "
        "seed={}) takes it",
    ),
    Alias(
        "batch_size",
        "bs batchsize per_device_train_batch_size train_batch_size minibatch_size",
        place="the data takes it, functrain.data.Batches((x, y), batch_size={})",
    ),
    Alias("shuffle", "", place="the data takes it, functrain.data.Batches(..., shuffle={})"),
    Alias(
        "workers",
        "num_workers n_workers nworkers dataloader_num_workers num_proc",
        place="the data takes it, functrain.data.Batches(..., workers={})",
    ),
    Alias("drop_last", "drop_remainder dataloader_drop_last"),
    Alias("collate", "collate_fn data_collator"),
    Alias("transform", "transforms augment augmentation augmentations preprocess map_fn"),
    Alias("prefetch", "prefetch_factor"),
    Alias("persistent", "persistent_workers"),
    Alias(
        "steps",
        "total_steps T_max decay_steps num_training_steps max_steps training_steps total_iters "
        "transition_steps max_iters max_iter T_total",
    ),
    Alias("end", "eta_min min_lr end_lr final_lr end_value end_learning_rate lr_min"),
    Alias("warmup_steps", "num_warmup_steps warmup warmup_iters"),
    Alias("warmup_proportion", "warmup_ratio pct_start warmup_fraction"),
    Alias("factor", "gamma decay_rate start_factor multiplier"),
    Alias("every", "step_size period frequency interval"),
    Alias("monitor", "metric metric_for_best_model monitored"),
    Alias("min_delta", "threshold tol early_stopping_threshold delta"),
    Alias("mode", "greater_is_better direction", 'mode="max"'),
    Alias("keep_last", "save_total_limit max_to_keep keep max_keep"),
    Alias("keep_best", "save_top_k save_best_only", "keep_best=1"),
)
