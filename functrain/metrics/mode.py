"""Whether less or more of a metric is better: what its object says, or a table of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from functrain.core.schedule import Mode
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest


def _names_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LESS = _names_in(
    """
    loss total_loss mean_loss loss_mean log_loss logloss nll nll_loss xent cross_entropy ce bce
    kl kl_loss kl_divergence hinge error err error_rate top1_error top5_error
    misclassification perplexity ppl bpb bpc bpd bits_per_byte bits_per_char
    mse mae rmse nrmse msle rmsle mape smape mean_squared_error mean_absolute_error
    wer cer ter word_error_rate character_error_rate fid kid lpips fvd crps ece brier brier_score
    fpr fnr false_positive_rate false_negative_rate distance regret cost
    """
)
_MORE = _names_in(
    """
    accuracy acc acc1 acc5 top1 top5 top1_acc top5_acc top1_accuracy top5_accuracy
    balanced_accuracy precision recall sensitivity specificity f1 f2 fbeta f1_score f1_macro
    f1_micro f1_weighted macro_f1 micro_f1 weighted_f1 auc auroc auprc roc_auc pr_auc
    average_precision map map50 map_50 iou miou mean_iou dice dice_score jaccard ndcg mrr
    hit_rate bleu sacrebleu chrf meteor rouge rouge1 rouge2 rougel rougelsum cider bertscore em
    exact_match psnr ssim r2 r2_score r_squared explained_variance mcc kappa cohen_kappa
    correlation pearson spearman kendall cosine_similarity log_likelihood success_rate win_rate
    reward mean_reward episode_reward return episode_return tpr tnr true_positive_rate
    true_negative_rate
    """
)
_VAGUE = ("score", "rate", "value", "metric")  # near to many names, and meaning none
_SET = re.compile("(train|training|val|valid|validation|dev|test|eval)_")


def mode_of_name(name: str) -> Mode | None:
    """Return the mode of a well-known name, and ``None`` of any other.

    The last part of the name counts, in any case, also behind the name of a set.

    Example:
        >>> [mode_of_name(name) for name in ("eval/ema/top5-accuracy", "perplexity", "val_f1")]
        ['max', 'min', 'max']
        >>> [mode_of_name(name) for name in ("eval/score", "accuracy_error", "-loss")]
        [None, None, None]
    """
    known = _plain(name)
    if known in _LESS:
        return "min"
    return "max" if known in _MORE else None


def _plain(name: str) -> str:
    """Return the last part of a name as the table has it."""
    word = re.sub(r"[^a-z0-9]+", "_", name.rpartition("/")[2].lower())
    return _SET.sub("", word, count=1) if _SET.match(word) else word


def modes_of_metrics(values: Mapping[str, Any]) -> dict[str, Mode]:
    """Return what metric objects say of themselves in ``higher_is_better``.

    The key is ``name/key`` where it was said of each number of a metric; unknown ones are left out.

    Example:
        >>> import torch
        >>> from functrain.metrics import Accuracy, Mean, Perplexity
        >>> modes_of_metrics({"a": Accuracy.empty(), "b": Perplexity.empty(), "c": Mean.empty()})
        {'a': 'max', 'b': 'min'}
    """
    found: dict[str, Mode] = {}
    for name, value in values.items():
        said = getattr(value, "higher_is_better", None)
        several = said.items() if isinstance(said, Mapping) else [("", said)]
        for key, higher in several:
            if isinstance(higher, bool):
                found[f"{name}/{key}" if key else name] = "max" if higher else "min"
    return found


def resolved_mode(
    monitor: str, mode: Mode | None, directions: Mapping[str, Mode] | None = None, where: str = ""
) -> Mode:
    """Return the direction of a monitored metric.

    The user's word decides if there is one; ``directions`` is what metric objects say, by full
    name. ``where`` says who asks, for the message.

    Example:
        >>> resolved_mode("loss", None), resolved_mode("loss", "max")
        ('min', 'max')
        >>> resolved_mode("a", None, {"eval/a": "max"})
        'max'
        >>> resolved_mode("eval/score", None, where="EarlyStop")
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: EarlyStop: 'eval/score' is no well-known name, and ...
    """
    if mode is not None:
        return mode
    given = directions or {}
    named = mode_of_name(monitor)
    known = _said(monitor, given) or _said(f"eval/{monitor}", given) or named
    if known is None or (named is not None and named != known):
        why = (
            f"is no well-known name{name_hint(monitor)}, and no metric object says whether less "
            "or more of it is better"
            if known is None
            else f"implies mode={named!r}, but its metric object says mode={known!r}"
        )
        raise ConfigurationError(
            f"{where or 'mode'}: {monitor!r} {why}. Give mode='min' (less is better) or mode='max'"
        )
    return known


def name_hint(name: str) -> str:
    """Return a hint for a message: the well-known name that the last part of a name is like."""
    word = _plain(name)
    return "" if word in _VAGUE else nearest(word, _LESS | _MORE)


def _said(name: str, directions: Mapping[str, Mode]) -> Mode | None:
    """Return the direction of the object that computed a number, also under ``name/key``."""
    while name:
        if name in directions:
            return directions[name]
        name = name.rpartition("/")[0]
    return None
