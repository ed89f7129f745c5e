"""``bcgan-tf attack merge``: the shards of an evaluation as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.errors import UserError
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.images import ImageSettings

from . import options, output, session
from .command import REPEAT, Command, from_run

_OTHERS = ("surrogate", "control")
# The default of options.
_BEFORE = "as the shards were told"


@click.command(cls=Command, name="merge")
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=MODEL",
    help="The model NAME of the shards, where it is now.  [default: where they had it]",
)
@options.model_options(_BEFORE)
@options.custom_objects_option()
@options.settings_options(EvaluationConfig, "diagnose", "minimum_perturbation", unset=_BEFORE)
@options.batch_size_option()
@options.data_dir_option()
@options.run_dir_options()
@options.common_options()
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    models: tuple[str, ...],
    surrogate: str | None,
    control: str | None,
    custom_objects: Path | None,
    diagnose: bool | None,
    minimum_perturbation: bool | None,
    batch_size: int,
    data_dir: Path | None,
    run_dir: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Join the runs of all shards of an evaluation into a new run.

    The totals are to the bit those of one run in the same precision. Then it does what the shards
    left: the diagnosis with its verdict, and the smallest perturbations, for which it needs the
    models and the data; with --no-diagnose it needs neither. A model that is a program, a
    SavedModel or module:function, is run only if it is named here: --model, --surrogate, --control.
    """
    from bcgan_tf.runs.directory import RunDirectory

    if not runs and resume and run_dir and (saved := RunDirectory.saved_config(run_dir)):
        runs = tuple(map(str, saved["config"].get("runs_merged") or ()))
    if not runs:
        raise click.UsageError("give the folders of the runs of all shards")
    session.check_programs(run_dir, {}, custom_objects=custom_objects and str(custom_objects))
    session.start_tensorflow()
    session.custom_objects(custom_objects)
    from bcgan_tf import progress
    from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
    from bcgan_tf.workflows import merge as shard_merging
    from bcgan_tf.workflows import run as pipeline
    from bcgan_tf.workflows.attack import save_evaluation

    config = shard_merging.common_config(runs)
    chosen = {"diagnose": diagnose, "minimum_perturbation": minimum_perturbation}
    config |= {key: value for key, value in chosen.items() if value is not None}
    settings = EvaluationConfig.from_dict(config)
    config["models"] = _models(config, models)
    config |= session.described_others(surrogate=surrogate, control=control)
    config["runs_merged"] = list(runs)
    if settings.diagnose or settings.minimum_perturbation:
        _refuse_unnamed(ctx, runs[0], config, models)
        _check_unchanged(config)
    threats = [threat for name in config["models"] for threat in settings.threat_models(name)]
    evaluations = shard_merging.merged(runs, threats)
    validation = {name: trained_accuracy(Path(spec)) for name, spec in config["models"].items()}
    data = None
    if settings.diagnose or settings.minimum_perturbation:
        session.make_repeatable(settings.seed, config.get("deterministic", False))
        images = options.ImageOptions(ImageSettings.from_dict(config))
        first = Path(next(iter(config["models"].values())))
        data = session.load_data(config["dataset"], data_dir, settings.seed, images, first)
    with session.open_run("merge", config, run_dir=run_dir, resume=resume, data=data) as run:
        if data is not None:
            loaded = _loaded(config, data)
            metrics = pipeline.evaluate_models(
                run, data, batch_size=batch_size, progress=progress.told, settings=settings,
                attacked=evaluations, validation=validation, **loaded,
            )  # fmt: skip
        else:
            for threat in threats:
                found, known = evaluations[threat.label], validation[threat.name]
                save_evaluation(run, threat, settings, found, validation=known)
            metrics = run.add_metrics(dataset=config["dataset"])
        output.finish(run, metrics, as_json)


def _models(config: dict[str, Any], given: tuple[str, ...]) -> dict[str, str]:
    """Those of the shards, where they are now."""
    moved = {name: str(model) for name, model in session.named_models(given).items()}
    if unknown := moved.keys() - config["models"].keys():
        raise click.UsageError(
            f"the shards have no model {sorted(unknown)[0]}; theirs: {', '.join(config['models'])}"
        )
    return config["models"] | moved


def _refuse_unnamed(
    ctx: click.Context, folder: str, config: dict[str, Any], given: tuple[str, ...]
) -> None:
    """Refuses models that are programs and named by the folders of runs alone."""
    named = {} if from_run(ctx, "models") else session.named_models(given)
    programs = {
        ("--model", f"{name}={model}"): name in named
        for name, model in config["models"].items()
        if session.is_program(model)
    }
    for key in _OTHERS:
        if config.get(key) and session.is_program(config[key]):
            programs["--" + key, config[key]] = bool(ctx.params[key]) and not from_run(ctx, key)
    ctx.meta[REPEAT] = [text for argument in programs for text in argument]
    unnamed = [text for argument, known in programs.items() if not known for text in argument]
    session.refuse_unnamed(folder, unnamed, ", or merge with --no-diagnose")


def _check_unchanged(config: dict[str, Any]) -> None:
    """Refuses models that are not what the shards were made of, before any is loaded."""
    from bcgan_tf.loading.model import source_digest

    attacked = [(spec, config["models_sha256"][name]) for name, spec in config["models"].items()]
    others = [(config[key], config.get(f"{key}_sha256")) for key in _OTHERS if config.get(key)]
    for spec, digest in [*attacked, *others]:
        try:
            same = source_digest(spec) == digest
        except UserError as error:
            raise UserError(f"{error}; put it there, or merge with --no-diagnose") from error
        if not same:
            raise UserError(
                f"{spec} is no longer what the shards attacked; put that back, or merge with "
                "--no-diagnose"
            )


def _loaded(config: dict[str, Any], data: Any) -> dict[str, Any]:
    models = {name: Path(spec) for name, spec in config["models"].items()}
    others = {key: Path(config[key]) for key in _OTHERS if config.get(key)}
    convention = Convention.from_dict(config)
    return {
        "models": session.load_sources(models, data, convention),
        **session.load_sources(others, data, convention),
    }
