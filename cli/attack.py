"""``bcgan-tf attack``: a suite of attacks on one or more classifiers, and a verdict on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.settings.attack import EvaluationConfig

from . import merge, options, output, session
from .command import Command


class _Attack(Command):
    """``attack merge ...`` is a command of its own; a model of that name is ``./merge``."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] != ["merge"]:
            return super().make_context(info_name, args, parent, **extra)
        between = click.Context(click.Command(info_name), parent, info_name)
        return merge.command.make_context("merge", args[1:], between, **extra)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_usage(ctx, formatter)
        formatter.write_usage(f"{ctx.command_path} merge", "[OPTIONS] RUN...", "       ")


@click.command(cls=_Attack)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@options.dataset_options()
@options.settings_options(EvaluationConfig)
@options.batch_size_option()
@options.workers_option(
    "Attack in other processes, each with its part of the processors, or a GPU; changes no result."
)
@options.convention_options()
@options.model_options()
@options.run_options()
def command(
    models: tuple[str, ...],
    dataset: str,
    data_dir: Path | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Attack classifiers, white-box, with the true labels, and say what to make of it.

    A MODEL is a .keras file, the folder of a SavedModel, or module:function (file.py:function), of
    images in [0, 1], or as --input-range says. Each attack of a suite sees what those before it
    left; what counts is the worst case for each image. The verdict says whether that can be
    believed.

    --workers attacks in several processes, of this machine or of a Ray cluster. On a cluster of a
    scheduler, run --shard 1/8 ... 8/8 (--shard auto in an array of SLURM or a Kubernetes Indexed
    Job), and join their runs by `bcgan-tf attack merge RUN...`, which gives what one run in their
    precision would have given.
    """
    names = session.named_models(models)
    convention = options.chosen_convention(settings)
    custom = settings.pop("custom_objects")
    programs = {name: settings[name] for name in ("surrogate", "control")}
    programs["custom_objects"] = custom and str(custom)
    session.check_programs(run_dir, names, **programs)
    images = options.chosen_images(settings)
    data = session.load_data(dataset, data_dir, seed, images, next(iter(names.values())))
    eps = options.chosen_eps(dataset, settings.pop("eps"), settings["norm"])
    batch_size, spec = settings.pop("batch_size"), settings.pop("workers")
    others = {name: settings.pop(name) for name in ("surrogate", "control")}
    chosen = EvaluationConfig(eps=eps, seed=seed, **settings)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf import progress
    from bcgan_tf.distribute.workers import workers
    from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
    from bcgan_tf.workflows import run as pipeline

    own = session.custom_objects(custom)
    loaded = session.load_sources(names, data, convention)
    config = {
        "dataset": dataset,
        **images.settings.changed(),
        **chosen.to_dict(),
        **convention.given,
        **own,
        "deterministic": deterministic,
        **session.described(names, **others),
    }
    others = session.load_sources({k: Path(v) for k, v in others.items() if v}, data, convention)
    if chosen.norm == "linf" and (units := convention.eps(eps)):
        click.echo(units, err=True)
    engine = spec and workers(spec)  # before the run's folder is made
    with session.open_run("attack", config, run_dir=run_dir, resume=resume, data=data) as run:
        metrics = pipeline.evaluate_models(
            run,
            data,
            loaded,
            chosen,
            batch_size=batch_size,
            workers=engine,
            progress=progress.told,
            validation={name: trained_accuracy(path) for name, path in names.items()},
            **others,
        )
        output.finish(run, metrics, as_json)
