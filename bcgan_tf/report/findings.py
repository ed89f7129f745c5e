"""What the numbers say, in plain sentences: what the defence did, did not, and what to doubt."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from bcgan_tf.report.table import attack_label, eps_text, percent

BASE, DEFENDED = "original", "hardened"
# Differences of accuracies up to this are rounding or a few images.
_SLACK = 0.005


def verdict(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences that compare ``hardened`` with ``original``; one for each model otherwise.

    Args:
        metrics: see :mod:`bcgan_tf.report.page`.
    """
    models: Mapping[str, Any] = metrics.get("models", {})
    if BASE not in models or DEFENDED not in models:
        return [_alone(name, model) for name, model in models.items()]
    base, defended = models[BASE], models[DEFENDED]
    sentences = [_clean(base, defended)]
    gains: dict[str, list[str]] = {"helped": [], "hurt": [], "no effect": []}
    details = []
    theirs = {worst["eps"]: worst for worst in defended.get("worst_case", [])}
    for before in base.get("worst_case", []):
        after = theirs.get(before["eps"])
        if after is not None:
            effect = _effect(before, after)
            gains[effect].append(f"{eps_text(before['eps'])}")
            details.append(
                f"{percent(before['robust_accuracy'])} to {percent(after['robust_accuracy'])} "
                f"at eps {eps_text(before['eps'])}"
            )
    if details:
        sentences.append(f"Robust accuracy (worst case) went from {', '.join(details)}.")
        sentences.append(_summary(gains))
    sentences += _unbounded(base, defended)
    return sentences


def _alone(name: str, model: Mapping[str, Any]) -> str:
    parts = [f"{name}: clean accuracy {percent(model['clean_accuracy'])}"]
    parts += [
        f"{percent(worst['robust_accuracy'])} at eps {eps_text(worst['eps'])}"
        for worst in model.get("worst_case", [])
    ]
    return ", ".join(parts) + "."


def _clean(base: Mapping[str, Any], defended: Mapping[str, Any]) -> str:
    before, after = base["clean_accuracy"], defended["clean_accuracy"]
    points = 100 * (after - before)
    cost = "unchanged" if abs(points) < 0.05 else f"{points:+.1f} points"
    return f"Clean accuracy went from {percent(before)} to {percent(after)} ({cost})."


def _effect(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Whether the difference is more than chance (two proportions, 95 %, taken as unpaired)."""
    p, q = before["robust_accuracy"], after["robust_accuracy"]
    spread = math.sqrt(p * (1 - p) / before["n"] + q * (1 - q) / after["n"])
    if abs(q - p) <= max(1.96 * spread, 1e-12):
        return "no effect"
    return "helped" if q > p else "hurt"


def _summary(gains: Mapping[str, list[str]]) -> str:
    words = {
        "helped": "the defence raised it by more than chance at eps {}",
        "hurt": "it lowered it at eps {}",
        "no effect": "it made no difference beyond chance at eps {}",
    }
    if not gains["helped"] and not gains["hurt"]:
        return "At none of these eps did the defence make a difference beyond chance."
    parts = [words[effect].format(" and ".join(at)) for effect, at in gains.items() if at]
    if not gains["helped"]:
        parts.append("so it gave no robustness against these attacks")
    return "In short: " + "; ".join(parts) + "."


def _unbounded(base: Mapping[str, Any], defended: Mapping[str, Any]) -> list[str]:
    sentences = []
    befores = {attack_label(a): a for a in base.get("attacks", []) if _free(a)}
    for after in filter(_free, defended.get("attacks", [])):
        before = befores.get(attack_label(after))
        if before is None or before.get("mean_l2") is None or after.get("mean_l2") is None:
            continue
        sentences.append(
            f"{after['attack']}, which has no bound, succeeds on {percent(after['success_rate'])} "
            f"of the hardened classifier's right answers, at a mean L2 distance of "
            f"{after['mean_l2']:.2f} (original: {percent(before['success_rate'])}, "
            f"{before['mean_l2']:.2f})."
        )
    return sentences


def doubts(metrics: Mapping[str, Any]) -> list[str]:
    """Signs in the numbers that an attack failed instead of the model holding; often empty.

    Three of evaluation's red flags, those that these attacks alone can show: the iterative attack
    does worse than one step, robust accuracy rises with eps, the unbounded attack misses.
    """
    found = []
    for name, model in metrics.get("models", {}).items():
        bounded: dict[str, dict[float, float]] = {}
        for attack in model.get("attacks", []):
            if not _free(attack):
                accuracies = bounded.setdefault(attack["attack"], {})
                accuracies[attack["config"]["eps"]] = attack["robust_accuracy"]
            elif (attack.get("success_rate") or 0.0) < 0.99:
                found.append(
                    f"{name}: {attack['attack']} without a bound succeeds on only "
                    f"{percent(attack.get('success_rate') or 0.0)}; a sound search reaches 100 %."
                )
        for attack, accuracies in bounded.items():
            found += _weaker_than_one_step(name, attack, accuracies, bounded)
            ordered = [accuracy for _, accuracy in sorted(accuracies.items())]
            if any(later > former + _SLACK for former, later in itertools.pairwise(ordered)):
                found.append(f"{name}: robust accuracy under {attack} rises with eps.")
    return found


def _weaker_than_one_step(
    model: str,
    attack: str,
    accuracies: Mapping[float, float],
    bounded: Mapping[str, Mapping[float, float]],
) -> list[str]:
    """An iterative attack, named like ``PGD-40`` or ``PGD-40-L2``, against FGSM in its norm."""
    if not attack.startswith("PGD-"):
        return []
    one_step = bounded.get("FGSM-L2" if attack.endswith("-L2") else "FGSM", {})
    return [
        f"{model}: {attack} is weaker than one FGSM step at eps {eps_text(eps)} "
        f"({percent(accuracy)} against {percent(one_step[eps])})."
        for eps, accuracy in accuracies.items()
        if eps in one_step and accuracy > one_step[eps] + _SLACK
    ]


def _free(attack: Mapping[str, Any]) -> bool:
    return attack.get("config", {}).get("eps") is None


def generated_rows(measures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """``(measure, value, how to read it)`` of the generated set; what is missing is left out.

    Args:
        measures: ``GeneratedSet.to_dict()``.
    """
    classes = measures.get("classes")
    limit = f", at most {math.log(classes):.2f} here" if classes else ""
    known = (
        ("n", "samples", "{:,}", "measured"),
        ("oracle_accuracy", "oracle accuracy on c", "{:.1%}", "true labels: an independent net "
         "sees the class that was asked for; higher is better"),
        ("classifier_accuracy", "classifier accuracy on c", "{:.1%}", "how often the classifier "
         "under defence agrees with c"),
        ("confidence", "mean largest probability", "{:.3f}", "the classifier's; lower is nearer to "
         "the boundary"),
        ("entropy", "mean entropy", "{:.3f}", f"in nats{limit}; higher is nearer to the boundary"),
        ("margin", "mean margin", "{:.3f}", "top-1 minus top-2 logit, 0 on the boundary"),
        ("useful", "useful share", "{:.1%}", "true label and a largest probability below 0.9"),
        ("diversity", "intra-class distance", "{:.3f}", "mean L2 between two samples of a class"),
        ("real_diversity", "the same of real data", "{:.3f}", "what it is compared with"),
        ("relative_diversity", "relative diversity", "{:.1%}", "of the real data's; a low share "
         "means that the generator repeats itself"),
    )  # fmt: skip
    return [
        (label, form.format(measures[key]).replace("%", " %"), reading)
        for key, label, form, reading in known
        if measures.get(key) is not None
    ]
