"""An evaluation in plain words: the verdict, what it means, and each red flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bcgan_tf.report.table import eps_text, percent

# The kind of a verdict to its headline and the tone it is shown in.
HEADLINES = {
    "robust": ("Robust", "good"),
    "weakly robust": ("Weakly robust", "open"),
    "not robust": ("Not robust", "bad"),
    "gradient masking": ("Gradient masking: robustness is not shown", "bad"),
    "black box only": ("Judged by black-box attacks only", "open"),
    "": ("No verdict: not checked for gradient masking", "open"),
}
# The kinds whose accuracy is believed; that of the others is an upper bound.
VOUCHED = ("robust", "weakly robust", "not robust")

# Each check to what it means when it is raised.
CHECKS = {
    "iterative vs one-step": "Many small steps did worse than one step: the search is misled.",
    "white vs black box": "Random search found what gradients did not.",
    "transfer": "Another model's adversarial examples found what attacks on this one did not.",
    "monotone in eps": "Accuracy rises where the attacker may do more, which is impossible.",
    "large eps": "More is left than any model can keep when each image can be turned to grey.",
    "convergence": "More steps break more: the attack was stopped too early.",
    "gradient health": "Gradients are zero, missing or not finite: attacks get no direction.",
    "logit scale": "Dividing the logits, which changes no answer, makes attacks succeed.",
    "loss choice": "Another loss breaks what the cross entropy left.",
    "stochastic forward": "The answers are random: attacks must average over them.",
    "unbounded attack": "With no limit on the change some images could still not be broken.",
    "random noise": "Random points find what the attacks missed.",
    "positive control": "The same attacks fail on a model that nobody defended.",
}
# The one check that is raised below its threshold.
_RAISED_BELOW = {"unbounded attack"}


def threat(evaluation: Mapping[str, Any]) -> str:
    """The threat model, such as ``Linf eps 0.3``; ``no bound`` without an eps."""
    if evaluation.get("eps") is None:
        return "no bound"
    norm = {"linf": "Linf", "l2": "L2"}.get(str(evaluation.get("norm", "linf")), "")
    return f"{norm} eps {eps_text(evaluation['eps'])}".strip()


def setting(evaluation: Mapping[str, Any]) -> str:
    """Threat model, suite and images in one line."""
    suite = evaluation.get("suite")
    parts = [threat(evaluation), f"suite {suite}" if suite else "chosen attacks"]
    if evaluation.get("n") is not None:
        parts.append(f"{evaluation['n']:,} images")
    if (evaluation.get("samples") or 1) != 1:
        parts.append(f"mean of {evaluation['samples']} calls")
    return ", ".join(parts)


def interval_of(found: Mapping[str, Any], name: str = "") -> tuple[float, float] | None:
    """The 95 % interval of a dict, whichever of the names in use it has."""
    for key in (f"{name}interval95", f"{name}interval"):
        if found.get(key):
            low, high = found[key]
            return float(low), float(high)
    return None


def accuracy(share: float | None, interval: tuple[float, float] | None = None) -> str:
    """``93.0 % (91.2 to 94.4)``."""
    if share is None:
        return "not measured"
    if interval is None:
        return percent(share)
    return f"{percent(share)} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def kind_of(evaluation: Mapping[str, Any]) -> str:
    """The kind of its verdict, or ``""`` where there is none."""
    return str((evaluation.get("verdict") or {}).get("kind", ""))


def headline(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict in a few words, and its tone: ``"good"``, ``"bad"`` or ``"open"``."""
    kind = kind_of(evaluation)
    if not kind and evaluation.get("shard"):
        return f"No verdict: shard {evaluation['shard']} of an evaluation", "open"
    return HEADLINES.get(kind, (kind, "open"))


def robust_accuracy(evaluation: Mapping[str, Any]) -> str:
    """The worst case with its interval; ``at most`` where the verdict does not vouch for it."""
    found = accuracy(evaluation.get("robust_accuracy"), interval_of(evaluation, "robust_"))
    vouched = kind_of(evaluation) in VOUCHED
    return found if vouched or evaluation.get("robust_accuracy") is None else f"at most {found}"


def meaning(evaluation: Mapping[str, Any]) -> list[str]:
    """What the verdict means for someone who decides on the model."""
    kind, n = kind_of(evaluation), evaluation.get("n")
    share, within = evaluation.get("robust_accuracy"), threat(evaluation)
    clean = accuracy(evaluation.get("clean_accuracy"), interval_of(evaluation, "clean_"))
    kept = (
        f"{round(share * n):,} of {n:,} test images"
        if share is not None and n
        else "These test images"
    )
    deciding = [flag["check"] for flag in flags_of(evaluation) if decides(flag)]
    named = ", ".join(deciding or (evaluation.get("verdict") or {}).get("flags", []))
    sentences = {
        "robust": f"{kept} are classified right and stay right under every attack that was tried "
        f"within {within}. Attacks bound robustness from above: a better one may find more.",
        "weakly robust": f"{kept} are classified right and stay right under every attack that was "
        f"tried within {within}: more than without a defence, but less than half of what it gets "
        "right unattacked.",
        "not robust": f"Within {within} an attacker leaves it no better than a model that always "
        "names the same class.",
        "gradient masking": f"Attacks failed for reasons that are not robustness: "
        f"{named}. The number above is what these attacks left within {within}, "
        "an upper bound; the true robust accuracy may be far lower.",
        "black box only": "The model gives an attacker no gradient to follow, so that only attacks "
        f"that need none, or a stand-in for it, could judge it. {kept} survived them within "
        f"{within}: an upper bound.",
        "": f"{kept} survived the attacks within {within}. Whether the attacks failed for "
        "another reason than robustness was not looked into.",
    }
    found = [sentences.get(kind, (evaluation.get("verdict") or {}).get("text", ""))]
    if kind == "not robust" and deciding:
        found.append(f"Weaker attacks would have missed that: its gradients are masked ({named}).")
    found.append(certified(evaluation))
    found.append(f"Clean accuracy on the same images: {clean}.")
    found.append(_flags_in_short(evaluation))
    return [sentence for sentence in found if sentence]


def certified(evaluation: Mapping[str, Any]) -> str:
    """What is proved, as a sentence; ``""`` where nothing is."""
    found = evaluation.get("certified")
    if not found:
        return ""
    share = accuracy(found["accuracy"], interval_of(found))
    skipped = evaluation.get("not_attacked")
    rest = f" The {skipped:,} images that it holds for were not attacked." if skipped else ""
    return f"Certified by {found['method']}: {share}. No attack can take that away.{rest}"


def _flags_in_short(evaluation: Mapping[str, Any]) -> str:
    flags = flags_of(evaluation)
    if not flags:
        return ""
    ran = [flag for flag in flags if flag.get("ran", True)]
    raised = [flag["check"] for flag in ran if flag.get("raised")]
    skipped = [flag["check"] for flag in flags if not flag.get("ran", True)]
    found = f"Red flags: {len(raised)} of {len(ran)} checks raised"
    found += f" ({', '.join(raised)})" if raised else ""
    if raised and not any(map(decides, ran)):
        found += ", none of which denies the verdict"
    return found + (f"; not run: {', '.join(skipped)}." if skipped else ".")


def flags_of(evaluation: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The red flags, those not run included; none where nothing was diagnosed."""
    return (evaluation.get("diagnosis") or {}).get("flags", [])


def decides(flag: Mapping[str, Any]) -> bool:
    """Whether this flag alone denies a verdict of robustness."""
    return bool(flag.get("decides", flag.get("raised") and flag.get("grade") == "evidence"))


def flag_state(flag: Mapping[str, Any]) -> tuple[str, str]:
    """``raised``, ``clean`` or ``not run``, and the tone of it."""
    if not flag.get("ran", True):
        return "not run", "none"
    if not flag.get("raised"):
        return "clean", "good"
    return ("raised, decides", "bad") if decides(flag) else ("raised", "open")


def flag_rank(flag: Mapping[str, Any]) -> int:
    """Where it stands in a list: first what decides, then raised, not run, clean."""
    order = ("raised, decides", "raised", "not run", "clean")
    return order.index(flag_state(flag)[0])


def flag_number(flag: Mapping[str, Any]) -> str:
    """What was measured, as a share of the images."""
    value = flag.get("value")
    return "-" if value is None else percent(value)


def flag_threshold(flag: Mapping[str, Any]) -> str:
    """When it is raised, such as ``> 0.5 %``."""
    threshold = flag.get("threshold")
    if threshold is None:
        return "-"
    return f"{'<' if flag.get('check') in _RAISED_BELOW else '>'} {percent(threshold)}"


def attack_rows(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each attack in words: ``attack``, ``tried``, ``broke``, ``alone``, ``left``, ``seconds``.

    ``alone`` is the accuracy under this attack alone, where it was tried on every image that is
    classified right; ``left`` that under it and all before it.
    """
    n, clean = evaluation.get("n"), evaluation.get("clean_accuracy")
    rows = []
    for attack in evaluation.get("attacks") or []:
        tried, broke = attack.get("attacked"), attack.get("broken", attack.get("successes"))
        alone = "survivors only"
        if n and clean is not None and tried == round(clean * n) and broke is not None:
            alone = accuracy(clean - broke / n, interval_of(attack))
        seconds = attack.get("seconds")
        rows.append(
            {
                "attack": str(attack.get("attack", "")),
                "tried": "-" if tried is None else f"{tried:,}",
                "broke": "-" if broke is None else f"{broke:,}",
                "alone": alone,
                "left": accuracy(attack.get("left"), interval_of(attack, "left_")),
                "seconds": "-" if seconds is None else f"{seconds:.1f} s",
            }
        )
    return rows
