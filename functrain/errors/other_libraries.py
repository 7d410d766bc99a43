"""What users of other libraries write, arguments and names in modules, and how to write it here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from functrain.errors.nearest import plain

# For each place, the arguments that it takes and their names in Keras, Lightning, the Trainer of
# Hugging Face and loops by hand. ``{}`` stands for the argument, or in an argument for its value.
_ARGUMENTS = {
    "functrain.fit(..., {}) takes it": """
        until="{} epochs": epochs epoch max_epochs num_epochs n_epochs nb_epoch
            num_train_epochs total_epochs
        until="{} steps": steps max_steps num_steps n_steps total_steps train_steps
            training_steps max_iters iterations num_iterations num_training_steps
        until="{} minutes": minutes max_time max_minutes time_limit
        data: x y train_data train_dataset train_loader train_dataloader train_dataloaders
            dataloader datamodule loader train_ds trainloader dataset
        eval_data: validation_data validation_split val_data valid_data val_dataset
            eval_dataset val_loader valid_loader eval_loader val_dataloader val_dataloaders
            eval_dataloader test_data val valid validation
        eval_every="1 epoch": validation_freq val_check_interval check_val_every_n_epoch
            eval_steps eval_strategy evaluation_strategy eval_interval
        save_every="1 epoch": save_steps save_strategy save_freq save_interval
            checkpoint_every every_n_epochs every_n_train_steps
        directory: output_dir default_root_dir save_dir checkpoint_dir checkpoint_path
            run_dir log_dir logging_dir dirpath dir folder path
        resume: ckpt_path resume_from_checkpoint resume_from initial_epoch checkpoint
        listeners=[...]: callbacks callback hooks
        listeners=[functrain.listeners.TensorBoard("runs/1")]: logger loggers report_to
            tracker trackers log_with
        progress=False: verbose disable_tqdm enable_progress_bar progress_bar show_progress
            tqdm quiet silent
        early_stop=functrain.EarlyStop(patience=5): early_stopping early_stopping_patience
            early_stopping_rounds stop
        restore_best=True: restore_best_weights load_best_model_at_end
        sanity_batches=2: num_sanity_val_steps sanity_check sanity_val_steps eval_on_start
            eval_before_training
        limit_train_batches=2, limit_eval_batches=2: fast_dev_run overfit_batches
            steps_per_epoch max_batches limit_batches batches_per_epoch epoch_length
        limit_eval_batches: limit_val_batches limit_test_batches validation_steps
            eval_batches max_eval_batches
        program=...: trainer net
    """,
    "functrain.program(model, loss, optimizer) takes it": """
        model: net network module model_init
        loss: loss_fn loss_function criterion objective compute_loss
        optimizer: optim opt optimiser optimizers tx
    """,
    "functrain.program(..., {}) takes it": """
        clip_norm: clipnorm global_clipnorm max_grad_norm max_norm gradient_clip_val
            gradient_clip_norm gradient_clipping grad_clip grad_clip_norm clip_grad_norm
            clip_gradients clip
        clip_value: clipvalue clip_grad_value gradient_clip_value
        accumulate: gradient_accumulation_steps accumulate_grad_batches grad_accum
            grad_accum_steps gradient_accumulation accumulation_steps accumulation
            micro_batches
        precision="bf16": fp16 bf16 amp mixed_precision autocast half dtype policy
        ema=0.999: ema_decay use_ema ema_momentum averaging swa
        nonfinite="skip": skip_nan skip_nonfinite nan terminate_on_nan check_finite
        trainable=["head.*"]: freeze frozen freeze_layers unfreeze trainable_params
            params_to_train
        evaluate=...: eval_fn eval_loss evaluation eval_step test_step
    """,
    "the optimizer takes it, functrain.optim.AdamW({})": """
        lr: learning_rate base_lr initial_lr initial_learning_rate init_lr step_size alpha
            start_lr max_lr peak_lr init_value
        lr=functrain.schedules.Cosine(1e-3): scheduler lr_scheduler lr_schedule schedule
            lr_scheduler_type
        betas=(0.9, 0.999): beta beta1 beta2 beta_1 beta_2 b1 b2 adam_beta1 adam_beta2
        weight_decay: wd decay l2 l2_penalty decoupled_weight_decay
    """,
    "a run is where its state is, state=program.init({})": """
        device: map_location to accelerator
    """,
    "program.init({}), functrain.fit(..., {}) or functrain.data.Batches(..., {}) takes it": """
        seed: random_state random_seed rng manual_seed generator key
    """,
    "the data takes it, functrain.data.Batches((x, y), {})": """
        batch_size: bs batchsize per_device_train_batch_size train_batch_size minibatch_size
    """,
    "the data takes it, functrain.data.Batches(..., {})": """
        shuffle:
        workers: num_workers n_workers nworkers dataloader_num_workers num_proc
    """,
    "the checkpoints or the rule take it, directory=functrain.Checkpoints(path, {}) or "
    "early_stop=functrain.EarlyStop({})": """
        monitor: metric metric_for_best_model monitored
        mode="max": greater_is_better direction
    """,
    "the rule takes it, early_stop=functrain.EarlyStop({})": """
        patience:
    """,
    "the run directory takes it, directory=functrain.Checkpoints(path, {})": """
        keep_last: save_total_limit max_to_keep keep max_keep
        keep_best=1: save_top_k save_best_only
    """,
    "": """
        eps: epsilon adam_epsilon eps_root
        momentum: mom beta beta1
        rho: decay
        drop_last: drop_remainder dataloader_drop_last
        collate: collate_fn data_collator
        transform: transforms augment augmentation augmentations preprocess map_fn
        prefetch: prefetch_factor
        persistent: persistent_workers
        steps: total_steps T_max decay_steps num_training_steps max_steps training_steps
            total_iters transition_steps max_iters max_iter T_total
        end: eta_min min_lr end_lr final_lr end_value end_learning_rate lr_min
        warmup_steps: num_warmup_steps warmup warmup_iters
        warmup_proportion: warmup_ratio pct_start warmup_fraction
        factor: gamma decay_rate start_factor multiplier
        every: step_size period frequency interval
        min_delta: threshold tol early_stopping_threshold delta
    """,
}
# Names that are no argument here, with a word on each.
_NONE = {
    "params parameters": (
        "the program gives the optimizer the parameters of its model, so leave it out"
    ),
    "foreach fused capturable differentiable jit_compile": (
        "it does not change results; leave it out, and use functrain.compiled(program)"
    ),
    "compile torch_compile jit compiled": "a transformation does it, functrain.compiled(program)",
    "donate donated inplace": "a transformation does it, functrain.donated(program)",
    "accelerator devices gpus num_gpus use_cpu cuda strategy num_nodes distributed ddp fsdp "
    "num_processes": (
        "a run is where its state is, state=program.init(device=...); several processes train "
        "functrain.sharded(program) under torchrun"
    ),
    "metrics metric compute_metrics metric_fns": (
        "the loss returns them, functrain.Loss(value, metrics={...})"
    ),
}

# Names that users of other libraries look for in a module, and what stands for each.
_FIT = 'functrain.fit(program, data, until="10 epochs")'
_PROGRAM = "functrain.program(model, loss, optimizer), with any nn.Module as the model"
_LISTENER = "functrain.listeners, or any object with methods such as on_batch_end(event)"
_BATCHES = "functrain.data.Batches((x, y), batch_size=32), or torch.utils.data.DataLoader"

IN_PACKAGE = {
    **dict.fromkeys(("Trainer", "train", "Learner", "Engine", "run", "train_loop"), _FIT),
    **dict.fromkeys(("Model", "Module", "LightningModule", "nn", "Sequential"), _PROGRAM),
    **dict.fromkeys(("Callback", "callbacks", "Logger", "loggers"), _LISTENER),
    **dict.fromkeys(("DataLoader", "Dataset", "DataModule", "TensorDataset"), _BATCHES),
    **dict.fromkeys(
        ("TrainingArguments", "Config"), "the arguments of functrain.program and functrain.fit"
    ),
    "EarlyStopping": "functrain.EarlyStop(monitor, patience)",
    "ModelCheckpoint": "functrain.fit(..., directory=functrain.Checkpoints(path, keep_best=1))",
    "Accelerator": "functrain.sharded(program) under torchrun, and program.init(device=...)",
    "seed_everything": "program.init(seed=0); all randomness of a run follows from it",
    "manual_seed": "program.init(seed=0); all randomness of a run follows from it",
    "train_step": "functrain.program(...).train_step(state, batch)",
    "eval_step": "functrain.program(...).eval_step(state, batch)",
    "init": "functrain.program(...).init(seed=0)",
    **dict.fromkeys(("compile", "jit"), "functrain.compiled(program)"),
    **dict.fromkeys(("grad", "vmap", "value_and_grad"), "torch.func"),
    "no_grad": "program.eval_step(state, batch), or torch.no_grad",
    "resume": "functrain.fit(..., directory=path), called again",
}
IN_DATA = {
    **dict.fromkeys(("DataLoader", "Loader", "TensorDataset", "Dataset"), _BATCHES),
    "random_split": "torch.utils.data.random_split, and functrain.data.Batches of each part",
}
IN_OPTIM = {
    "lr_scheduler": "functrain.schedules, as in functrain.optim.AdamW(lr=functrain.schedules....)",
    "Optimizers": "functrain.optim.AdamW(lr=1e-3)",
    "LBFGS": "functrain.optim.from_torch for torch's other optimizers; LBFGS needs a closure",
    **{
        name: f"functrain.optim.from_torch(torch.optim.{name}, lr=...)"
        for name in ("ASGD", "Rprop")
    },
    "param_groups": "functrain.optim.groups({pattern: optimizer})",
}
IN_SCHEDULES = {
    **dict.fromkeys(("CosineAnnealingLR", "CosineDecay", "cosine_decay_schedule"), "Cosine(1e-3)"),
    **dict.fromkeys(("StepLR", "ExponentialLR", "MultiStepLR"), "Step, Exponential or MultiStep"),
    **dict.fromkeys(
        ("ReduceLROnPlateau", "ReduceOnPlateau"), "Plateau(1e-3, factor=0.1, patience=10)"
    ),
    **dict.fromkeys(
        ("get_cosine_schedule_with_warmup", "LinearWarmup"), "WarmupCosine(1e-3, warmup_steps=100)"
    ),
    "OneCycleLR": "OneCycle(1e-3)",
    "LambdaLR": "Lambda(function)",
}
IN_LISTENERS = {
    **dict.fromkeys(("WandbLogger", "WandbCallback", "Wandb"), "WandB(project)"),
    **dict.fromkeys(("TensorBoardLogger", "SummaryWriter"), "TensorBoard(directory)"),
    **dict.fromkeys(("TQDM", "RichProgressBar", "Progress"), "ProgressBar(), which fit has anyway"),
    "EarlyStopping": "functrain.fit(..., early_stop=functrain.EarlyStop(patience=5))",
    "ModelCheckpoint": "functrain.fit(..., directory=functrain.Checkpoints(path, keep_best=1))",
    "CSVLogger": "CSV(path)",
    "Callback": "any object with methods such as on_batch_end(event)",
    "LearningRateMonitor": "nothing: the learning rate is in every row, history['lr']",
}


@attrs.frozen
class Alias:
    """An argument of functrain with its names elsewhere.

    Attributes:
        write: how to write the argument, or only its name; ``""`` for what is no argument here.
        others: names in other libraries, in plain spelling.
        place: what takes the argument, for calls that do not.
    """

    write: str
    others: frozenset[str] = frozenset()
    place: str = ""

    @property
    def name(self) -> str:
        """The name of the argument."""
        return self.write.partition("=")[0]

    def written(self, value: Any) -> str:
        """Return the argument as source, with a value if that is short."""
        template = self.write if "=" in self.write else f"{self.write}={{}}"
        short = isinstance(value, bool | int | float | str)
        shown = repr(value) if short and '"{}' not in template else str(value) if short else "..."
        return template.replace("{}", shown)

    def placed(self, value: Any) -> str:
        """Return what takes the argument, with a value if that is short."""
        return self.place.replace("{}", self.written(value))


def aliases() -> Iterator[Alias]:
    """Read the tables, which only a failed call needs."""
    for names, place in _NONE.items():
        yield Alias("", frozenset(map(plain, names.split())), place)
    for place, table in _ARGUMENTS.items():
        for line in table.strip().replace("\n" + " " * 12, " ").splitlines():
            write, _, others = line.strip().partition(":")
            yield Alias(write, frozenset(map(plain, others.split())), place)
