"""The card of an exported model, made from the runs that trained and attacked it."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.files import COPY_PREFIX, path_within
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig

Card = dict[str, Any]
_STAGES = {"original": "train", "hardened": "harden"}


def of_training(run: RunDirectory, model: str) -> Card:
    """The card of a run's ``model``: its defence and the accuracies that the run measured.

    Args:
        run: the run that trained and measured the model.
        model: ``"hardened"``, or ``"original"``, the classifier that it trained.

    Raises:
        UserError: the run is not finished, or its files are not those of a run.
    """
    with _reading(run):
        payload = trained(run, model)
        metrics = _finished(run.metrics()).get(model)
        if metrics is None:
            raise UserError(
                f"{run.path} has not measured its {model} classifier; go on with: "
                f"{run.resuming_command}"
            )
        entries = metrics.get("evaluations", ())
        return {
            "defense": {**payload["defense"]} if model == "hardened" else None,
            "clean_accuracy": metrics["clean_accuracy"],
            "robust_accuracy": [*map(_worst_case, entries)] or None,
            **_certified(entries),
            "run": run.path.name,
        }


def trained(run: RunDirectory, model: str) -> dict[str, Any]:
    """The entry in stages.json of the stage that made a run's ``model``.

    Raises:
        UserError: the stage is not finished.
    """
    stage = _STAGES[model]
    if not run.stage_done(stage):
        raise UserError(
            f"{run.path} has not finished its {model} classifier; go on with: "
            f"{run.resuming_command}"
        )
    return run.stage_payload(stage)


@contextlib.contextmanager
def _reading(run: RunDirectory) -> Iterator[None]:
    """Checks the files of a run, which may be incomplete or made by others."""
    for name in ("config.json", "stages.json", "metrics.json"):
        path_within(run.path, name)
        path_within(run.path, f"{COPY_PREFIX}{name}")
    try:
        yield
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the files of {run.path} are not those that a run writes ({error!r}); run it again in "
            "another folder"
        ) from error


def of_evaluation(evaluation: Evaluation) -> Card:
    """The clean accuracy and the worst case of an evaluation, with its verdict where it has one."""
    worst = _worst_case(evaluation.to_dict())
    return {"clean_accuracy": evaluation.clean_accuracy, "robust_accuracy": [worst]}


def with_evaluation(card: Mapping[str, Any], run: RunDirectory, digest: str) -> Card:
    """A card with the worst case of a run of ``bcgan-tf attack``.

    It comes before the entries of the run that trained the model, with its interval and the kind of
    its verdict. The command line that repeats the evaluation is added, and ``certified_accuracy``
    where something is proved.

    Args:
        card: of the same model, may be empty.
        run: of the attacks.
        digest: of the model, :func:`bcgan_tf.loading.digest.model_digest`.

    Returns:
        A new card.

    Raises:
        UserError: the run is not finished, attacked other models, or one shard of the images.
    """
    with _reading(run):
        return {**card, **_evaluated(run, digest, card.get("robust_accuracy") or ())}


def _finished(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The models in metrics.json; none while they are evaluated, when a verdict may be missing."""
    return {} if metrics.get("unfinished") else metrics.get("models", {})


def _evaluated(run: RunDirectory, digest: str, before: Iterable[Any]) -> Card:
    models = _finished(run.metrics())
    if not models:
        raise UserError(f"{run.path} is not finished; go on with: {run.resuming_command}")
    known = run.config.get("models_sha256", {})
    attacked = [models[name] for name, own in known.items() if own == digest and name in models]
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
    return {
        "clean_accuracy": entries[0]["clean_accuracy"],
        "robust_accuracy": [*map(_worst_case, entries), *before],
        **_certified(entries),
        "evaluation": {"run": run.path.name, "command": _repeating(run)},
    }


def _repeating(run: RunDirectory) -> str:
    """The command line that repeats an evaluation; for merged shards, that of the whole."""
    if run.command != "merge":
        return run.command_line
    settings = EvaluationConfig.from_dict(run.config)
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


def _certified(entries: Iterable[Mapping[str, Any]]) -> Card:
    found = [
        {"eps": entry["eps"], **entry["certified"]} for entry in entries if entry.get("certified")
    ]
    return {"certified_accuracy": found} if found else {}


def _worst_case(entry: Mapping[str, Any]) -> dict[str, Any]:
    suite = f"the suite {entry['suite']}"
    if entry["suite"] is None:
        suite = ", ".join(attack["attack"] for attack in entry["attacks"])
    return {
        "attack": f"worst case of {suite}",
        "norm": entry["norm"],
        "eps": entry["eps"],
        "n": entry["n"],
        "accuracy": entry["robust_accuracy"],
        "interval95": list(entry["robust_interval95"]),
        "verdict": (entry.get("verdict") or {}).get("kind"),
    }
