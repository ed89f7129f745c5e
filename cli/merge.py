"""``bcgan-tf attack merge``: the shards of an evaluation as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.assessment_settings import AssessmentSettings
from bcgan_tf.errors import UserError

from . import options, output, session, suite_options
from .command import Command


@click.command(cls=Command, name="merge")
@click.argument("runs", nargs=-1, metavar="RUN...")
@suite_options.finishing_options_as_before()
@suite_options.batch_size_option()
@options.data_dir_option()
@options.run_dir_options()
@options.common_options()
def command(
    runs: tuple[str, ...],
    surrogate: str | None,
    control: str | None,
    diagnose: bool | None,
    minimum_perturbation: bool | None,
    batch_size: int,
    data_dir: Path | None,
    run_dir: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Join the runs of all shards of an evaluation into a new run.

    The totals are to the bit those of one run. Then it does what the shards left: the diagnosis
    with its verdict, and the smallest perturbations, for which it needs the models and the data;
    with --no-diagnose it needs neither.
    """
    from bcgan_tf.runs import RunDirectory

    if not runs and resume and run_dir and (saved := RunDirectory.saved_config(run_dir)):
        runs = tuple(saved["config"].get("runs_merged", ()))
    if not runs:
        raise click.UsageError("give the folders of the runs of all shards")
    session.start_tensorflow()
    from bcgan_tf import pipeline, progress, shard_merging

    config = shard_merging.common_config(runs)
    chosen = {"diagnose": diagnose, "minimum_perturbation": minimum_perturbation}
    config |= {key: value for key, value in chosen.items() if value is not None}
    config |= session.described_others(surrogate=surrogate, control=control)
    config["runs_merged"] = list(runs)
    settings = AssessmentSettings.from_dict(config)
    names = list(config["models"])
    with session.open_run("merge", config, run_dir=run_dir, resume=resume) as run:
        shard_merging.merge_shards(run, runs, names, settings)
        if settings.diagnose or settings.minimum_perturbation:
            session.make_repeatable(settings.seed, config.get("deterministic", False))
            data = session.load_data(config["dataset"], data_dir, settings.seed)
            loaded = _loaded(config, data)
            metrics = pipeline.assess_models(
                run, data, batch_size=batch_size, progress=progress.told, settings=settings,
                **loaded,
            )  # fmt: skip
        else:
            metrics = pipeline.write_metrics(run, config["dataset"], names, settings)
        output.finish(run, metrics, as_json)


def _loaded(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """The models that the shards were made of, unchanged since."""
    from bcgan_tf.model_source import source_digest

    models = {name: Path(spec) for name, spec in config["models"].items()}
    others = {name: Path(config[name]) for name in ("surrogate", "control") if config.get(name)}
    digests = config["models_sha256"] | {name: config[f"{name}_sha256"] for name in others}
    for name, spec in {**models, **others}.items():
        try:
            same = source_digest(spec) == digests[name]
        except UserError as error:
            raise UserError(f"{error}; put it there, or merge with --no-diagnose") from error
        if not same:
            raise UserError(
                f"{spec} is no longer what the shards attacked; put that back, or merge with "
                "--no-diagnose"
            )
    return {"models": session.load_sources(models, data), **session.load_sources(others, data)}
