"""Names that users of other libraries look for on the package, and what stands for each."""

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
