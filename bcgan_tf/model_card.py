"""What the card of an exported model says, taken from the runs that trained and attacked it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from bcgan_tf.assessment_settings import AssessmentSettings
from bcgan_tf.errors import UserError
from bcgan_tf.runs import RunDirectory

Card = dict[str, Any]


def of_training(run: RunDirectory, model: str) -> Card:
    """The card of a run's ``model``: its defence, and what the run itself measured of it."""
    metrics = run.metrics().get("models", {}).get(model, {})
    robust = [
        {
            "attack": entry["attack"],
            "eps": entry["config"].get("eps"),
            "n": entry["n"],
            "accuracy": entry["robust_accuracy"],
        }
        for entry in metrics.get("attacks", ())
        if entry["config"].get("eps") is not None
    ]
    defense = run.stage_payload("harden").get("defense") if run.stage_done("harden") else None
    return {
        "defense": defense if model == "hardened" else None,
        "clean_accuracy": metrics.get("clean_accuracy"),
        "robust_accuracy": robust or None,
        "run": run.path.name,
    }


def with_evaluation(card: Mapping[str, Any], run: RunDirectory, sha256: str) -> Card:
    """A card with the worst case that a run of ``bcgan-tf attack`` found.

    It stands before the single attacks of the run that trained the model, with its interval and
    the kind of its verdict; ``certified_accuracy`` where something is proved, and the command line
    that repeats the evaluation, are added.

    Args:
        card: of the same model, may be empty.
        run: of the attacks.
        sha256: of the file of the model, by which the run knows it.

    Returns:
        Another card.

    Raises:
        UserError: the run attacked other models, or one shard of the images.
    """
    digests: Mapping[str, str] = run.config.get("models_sha256", {})
    models = run.metrics().get("models", {})
    attacked = [models[name] for name, own in digests.items() if own == sha256 and name in models]
    entries = [entry for model in attacked for entry in model.get("evaluations", ())]
    if not entries:
        raise UserError(
            f"{run.path} holds no evaluation of this very model; attack it with `bcgan-tf attack "
            "--suite standard`, and give the folder of that run"
        )
    if any(entry.get("shard") for entry in entries):
        raise UserError(
            f"{run.path} attacked one shard of the images; join all with `bcgan-tf attack merge`, "
            "and give the folder of what they make"
        )
    certified = [
        {"eps": entry["eps"], **entry["certified"]} for entry in entries if entry.get("certified")
    ]
    return {
        **card,
        "clean_accuracy": entries[0]["clean_accuracy"],
        "robust_accuracy": [*map(_worst_case, entries), *(card.get("robust_accuracy") or ())],
        **({"certified_accuracy": certified} if certified else {}),
        "evaluation": {"run": run.path.name, "command": _repeating(run)},
    }


def _repeating(run: RunDirectory) -> str:
    """The command line that repeats an evaluation, of merged shards that of the whole at once."""
    if run.command != "merge":
        return run.command_line
    settings = AssessmentSettings.from_dict(run.config)
    words = ["bcgan-tf", "attack", *run.config["models"].values()]
    words += ["--dataset", run.config["dataset"], "--eps", repr(settings.eps)]
    for field in dataclasses.fields(settings):
        value, flag = getattr(settings, field.name), field.name.replace("_", "-")
        if field.name == "eps" or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    for other in ("surrogate", "control"):
        if run.config.get(other):
            words += [f"--{other}", run.config[other]]
    return shlex.join(words)


def _worst_case(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attack": f"worst case of the suite {entry['suite']}",
        "norm": entry["norm"],
        "eps": entry["eps"],
        "n": entry["n"],
        "accuracy": entry["robust_accuracy"],
        "interval95": list(entry["robust_interval95"]),
        "verdict": (entry.get("verdict") or {}).get("kind"),
    }
