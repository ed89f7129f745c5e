"""Results in plain words: an evaluation's verdict, its red flags, what a GAN makes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bcgan_tf.report.table import (
    BEST_CLASSES,
    NORMS,
    WORST_CLASSES,
    Cell,
    Table,
    TableRow,
    accuracy,
    count,
    eps_text,
    percent,
)

# The kind of a verdict to its headline and severity.
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
    norm = NORMS.get(str(evaluation.get("norm", "linf")), "")
    return f"{norm} eps {eps_text(evaluation['eps'])}".strip()


def setting(evaluation: Mapping[str, Any]) -> str:
    """Threat model, suite and images in one line."""
    suite = evaluation.get("suite")
    parts = [threat(evaluation), f"suite {suite}" if suite else "chosen attacks"]
    if evaluation.get("n") is not None:
        parts.append(f"{count(evaluation['n'])} images")
    if (evaluation.get("samples") or 1) != 1:
        parts.append(f"mean of {evaluation['samples']} calls")
    if (evaluation.get("precision") or "float32") != "float32":
        parts.append(f"searched in {evaluation['precision']}")
    if evaluation.get("fallback"):
        parts.append(evaluation["fallback"])
    return ", ".join(parts)


def kind_of(evaluation: Mapping[str, Any]) -> str:
    """The kind of its verdict, or ``""`` where there is none."""
    return str((evaluation.get("verdict") or {}).get("kind", ""))


def headline(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict in a few words, and its severity: ``"good"``, ``"bad"`` or ``"open"``."""
    kind = kind_of(evaluation)
    if not kind and evaluation.get("shard"):
        return f"No verdict: shard {evaluation['shard']} of an evaluation", "open"
    return HEADLINES.get(kind, (kind, "open"))


def robust_accuracy(evaluation: Mapping[str, Any]) -> Cell:
    """The worst case with its interval; ``at most`` where the verdict does not vouch for it."""
    found = accuracy(evaluation, "robust_")
    if kind_of(evaluation) in VOUCHED or evaluation.get("robust_accuracy") is None:
        return found
    return dataclasses.replace(found, text=f"at most {found.text}")


def meaning(evaluation: Mapping[str, Any]) -> list[str]:
    """What the verdict means for someone who decides on the model."""
    kind, n = kind_of(evaluation), evaluation.get("n")
    share, within = evaluation.get("robust_accuracy"), threat(evaluation)
    clean = accuracy(evaluation, "clean_")
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


def classes_note(evaluation: Mapping[str, Any], shown: int) -> str:
    """What the table of classes shows."""
    occurring = len((evaluation.get("classes") or {}).get("n", ()))
    told = "Of the images of each class, those that are right, and stay right under every attack."
    if shown < occurring:
        told += (
            f" Of {occurring:,} classes with test images, the {WORST_CLASSES} least robust and the "
            f"{BEST_CLASSES} most robust."
        )
    return told


def suspicions(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why clean accuracies cannot be relied on, to be said before all else.

    Args:
        models: the ``models`` of metrics.json.
    """
    return [
        f"{name}: {model['suspicion']}." for name, model in models.items() if model.get("suspicion")
    ]


def before_and_after(metrics: Mapping[str, Any]) -> list[str]:
    """What a hardening gained, as far as a short suite can tell; none where it was not measured.

    Args:
        metrics: of a run of ``harden``; its ``verdict_command`` judges its models.
    """
    if not (command := metrics.get("verdict_command")):
        return []
    found = [
        (name, entry)
        for name, model in metrics.get("models", {}).items()
        for entry in model.get("evaluations", ())
    ]
    told = [f"{name} {robust_accuracy(entry)}" for name, entry in found]
    sentence = f"Robust accuracy, {setting(found[0][1])}: {'; '.join(told)}." if found else ""
    last = f"Each is an upper bound, no verdict: run `{command}` for one."
    return [*filter(None, [sentence]), last]


def certified(evaluation: Mapping[str, Any]) -> str:
    """What is proved, as a sentence; ``""`` where nothing is."""
    found = evaluation.get("certified")
    if not found:
        return ""
    skipped = evaluation.get("not_attacked")
    images = "image that it holds for was" if skipped == 1 else "images that it holds for were"
    rest = f" The {skipped:,} {images} not attacked." if skipped else ""
    return f"Certified by {found['method']}: {accuracy(found)}. No attack can take that away.{rest}"


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


# What the state of a flag is called to its severity, in the order in which flags are listed.
_STATES = {"raised, decides": "bad", "raised": "open", "not run": "none", "clean": "good"}


def _state(flag: Mapping[str, Any]) -> str:
    if not flag.get("ran", True):
        return "not run"
    if not flag.get("raised"):
        return "clean"
    return "raised, decides" if decides(flag) else "raised"


def flags_table(evaluation: Mapping[str, Any]) -> Table:
    """The red flags: what decides first, then what was raised, not run, clean."""
    rows = []
    for flag in sorted(flags_of(evaluation), key=lambda flag: list(_STATES).index(_state(flag))):
        check, state, threshold = str(flag.get("check", "")), _state(flag), flag.get("threshold")
        side = "<" if check in _RAISED_BELOW else ">"
        rows.append(
            TableRow.of(
                Cell(check, explanation=CHECKS.get(check, "")),
                Cell(state, severity=_STATES[state]),
                _share(flag.get("value")),
                "-" if threshold is None else f"{side} {percent(threshold)}",
                flag.get("grade", ""),
                flag.get("text", ""),
            )
        )
    head = ("check, and what it means when raised", "result", "measured", "raised if", "grade")
    return Table((*head, "seen"), tuple(rows))


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


# The searches for the smallest perturbation: what each is called, and how to read its distances.
SEARCHES = {
    "fgsm": ("Along the gradient's sign (FGSM)", "Misled by masked gradients: compare it with the "
             "best. Over the images that are classified right; misses count as the limit."),
    "multi": ("Along many lines", "Over all images; misclassified ones count as 0."),
    "best": ("Best of all searches", "The headline: over all images, misclassified ones as 0."),
}  # fmt: skip


def distances_table(found: Mapping[str, Any]) -> Table:
    """The mean and median distance that each search found.

    Args:
        found: ``MinimumPerturbation.to_dict()``, or ``{}``.
    """
    rows = [
        TableRow.of(
            Cell(label, explanation=reading),
            _mean(numbers),
            _distance(numbers.get("median")),
            _share(numbers.get("capped_share", numbers.get("censored_share"))),
            _share(numbers.get("zero_gradient_share")),
            numbers.get("n", "-"),
            strong=search == "best",
        )
        for search, (label, reading) in SEARCHES.items()
        if (numbers := found.get(f"rho_{search}"))
    ]
    head = ("reading", "mean", "median", "nothing found", "zero gradient", "images")
    return Table(head, tuple(rows))


def _mean(numbers: Mapping[str, Any]) -> str:
    if numbers.get("mean") is None and numbers.get("mean_found") is not None:
        return f"more than {_distance(numbers['mean_found'])}"
    return _distance(numbers.get("mean"))


def _distance(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def smallest_perturbation(found: Mapping[str, Any]) -> str:
    """``MinimumPerturbation.to_dict()`` as a sentence: mean and median of the best search."""
    best = found["rho_best"]
    return (
        f"Smallest perturbation, {NORMS[found['norm']]}: mean {_mean(best)}, median "
        f"{_distance(best['median'])}, nothing found for {_share(best['censored_share'])}"
    )


def causes_table(causes: Mapping[str, Any]) -> Table:
    """What attacking the wrong way adds to the accuracy.

    Args:
        causes: ``Causes.to_dict()``, or ``{}``.
    """
    rows = []
    for row in causes.get("rows", []):
        inflation = row.get("inflation")
        state = Cell("no", severity="good")
        if inflation is None:
            state = Cell("not run", severity="none")
        if row.get("reproduces"):
            state = Cell("yes", severity="bad")
        rows.append(
            TableRow.of(
                row.get("cause", ""),
                Cell(_share(row.get("accuracy_on")), explanation=str(row.get("on", ""))),
                Cell(_share(row.get("accuracy_off")), explanation=str(row.get("off", ""))),
                "-" if inflation is None else f"{100 * inflation:+.1f} points",
                state,
            )
        )
    head = ("cause", "attacked the wrong way", "attacked the right way", "difference", "inflates")
    return Table(head, tuple(rows))


def generated_table(measures: Mapping[str, Any]) -> Table:
    """The measures of the generated set and how to read them; what is missing is left out.

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
    rows = [
        TableRow.of(label, form.format(measures[key]).replace("%", " %"), reading)
        for key, label, form, reading in known
        if measures.get(key) is not None
    ]
    return Table(("measure", "value", "how to read it"), tuple(rows))
