"""Whether less or more of a metric is better: what its object says, or what its name implies.

A name is read by its words. Its last word that is not a mere qualifier must be well known, and no
other word may contradict it or turn it round; of any other name nothing is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from functrain.core.schedule import Mode
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LESS = _words_of(
    """
    loss losses logloss nll xent bce ce cost regret hinge error errors err
    misclassification perplexity perplexities ppl bpb bpc bpd bpw mse mae rmse nrmse nmse
    msle rmsle mape smape wape mase sse crps wer cer eer ter fid fvd kid lpips kl kld
    divergence distance wasserstein mmd chamfer hausdorff ece mce brier fpr fnr residual
    residuals
    """
)
_MORE = _words_of(
    """
    accuracy accuracies acc precision recall sensitivity specificity correct f1 f2 fbeta
    fscore fmeasure auc auroc auprc aupr roc map iou miou giou jaccard dice ndcg dcg mrr
    hit hits bleu sacrebleu bleurt chrf meteor rouge rouge1 rouge2 rougel rougelsum cider
    bertscore em psnr ssim r2 mcc matthews kappa correlation pearson spearman kendall
    similarity likelihood loglikelihood success win wins reward rewards return returns tpr
    tnr nmi ari ami silhouette
    """
)
# Words for phrases, in the order in which they are looked for.
_PHRASES = {
    "negative log likelihood": "nll",
    "neg log likelihood": "nll",
    "negative loglikelihood": "nll",
    "cross entropy": "xent",
    "log loss": "nll",
    "exact match": "em",
    "explained variance": "r2",
    "r squared": "r2",
    "r 2": "r2",
    **{f"bits per {of}": f"bp{of[0]}" for of in ("byte", "char", "character", "dim", "word")},
    **{f"{t} {p}": f"{t[0]}{p[0]}r" for t in ("true", "false") for p in ("positive", "negative")},
}
# They may stand behind the word that counts: loss_mean, f1_macro, bleu_score, recall_at_5.
_QUALIFIERS = _words_of(
    """
    score rate value metric mean avg average median macro micro weighted balanced sum
    total overall raw norm normalized smooth smoothed ema final all global batch epoch
    step train training val valid validation dev test eval holdout top k class
    """
)
_AVERAGES = _words_of("mean avg average median macro micro weighted total overall class")
# Behind these a name says of what, not what: loss_per_token, precision_at_recall_90.
_LINKS = ("per", "at", "by")
# With one of these in it a name may mean the opposite, or something else altogether.
_UNSETTLING = _words_of(
    """
    neg negative minus inverse inverted inv reciprocal anti non not no without complement
    delta diff difference gap drop change decrease increase improvement reduction std
    stdev var variance false time seconds steps until to attack attacker backdoor poison
    forget forgetting leakage inference discriminator
    """
)
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|[A-Z]+\d*|\d+")
# A loss function may be called after what it raises.
_RAISED = frozenset(["dice", "iou", "giou", "jaccard", "ssim", "similarity", "reward"])
_REVERSED = re.compile(r"-|1(\.0)?\s*-|1_minus|one_minus")


def mode_of_name(name: str) -> Mode | None:
    """Return what the last part of a well-known name implies; ``None`` for nothing, or two things.

    Example:
        >>> [mode_of_name(name) for name in ("eval/ema/top5_accuracy", "perplexity", "f1_macro")]
        ['max', 'min', 'max']
        >>> [mode_of_name(name) for name in ("eval/score", "accuracy_error", "negative_accuracy")]
        [None, None, None]
    """
    *above, last = name.split("/")
    # A metric of several numbers names them: eval/f1/macro.
    for part in (last, *reversed(above[1:])):
        if _REVERSED.match(part.strip().lower()):
            return None
        words = _counting(_words(part))
        if words:
            return _of_words(words)
        if not all(word in _AVERAGES or word.isdigit() for word in _words(part)):
            return None
    return None


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
    """Return a hint for a message: the well-known word that the last part of a name is like."""
    word = name.rpartition("/")[2].lower()
    return "" if word in _QUALIFIERS else nearest(word, _LESS | _MORE)


def _said(name: str, directions: Mapping[str, Mode]) -> Mode | None:
    """Return the direction of the object that computed a number, also under ``name/key``."""
    while name:
        if name in directions:
            return directions[name]
        name = name.rpartition("/")[0]
    return None


def _words(part: str) -> list[str]:
    """Split at anything but letters and digits, and between AnyTwoWords; well-known ones stay."""
    found: list[str] = []
    for piece in re.split(r"[^A-Za-z0-9]+", part):
        pieces = [piece] if _plain(piece.lower()) in _LESS | _MORE else _WORDS.findall(piece)
        found += [_plain(word.lower()) for word in pieces]
    return _phrased(found)


def _plain(word: str) -> str:
    """Return a word without the number at its end, unless that belongs to it (``f1``)."""
    return word if word in _LESS | _MORE else word.rstrip("0123456789") or word


def _phrased(words: list[str]) -> list[str]:
    text = " ".join(words)
    for phrase, word in _PHRASES.items():
        text = re.sub(rf"\b{phrase}\b", word, text)
    return text.split()


def _counting(words: list[str]) -> list[str]:
    """Return the words up to the last that is no qualifier."""
    link = next((at for at, word in enumerate(words) if word in _LINKS and at), len(words))
    words = words[:link]
    while words and (words[-1] in _QUALIFIERS or words[-1].isdigit()):
        words = words[:-1]
    return words


def _of_words(words: list[str]) -> Mode | None:
    *others, head = words
    if _UNSETTLING.intersection(words):
        return None
    if head in _MORE:
        return None if _LESS.intersection(others) else "max"
    against = _MORE.intersection(others) - (_RAISED if head in ("loss", "losses") else frozenset())
    return "min" if head in _LESS and not against else None
