"""``bcgan-tf harden``: a defence makes a classifier more robust."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf.distribute import cluster
from bcgan_tf.errors import UserError
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.fields import Setting
from bcgan_tf.settings.kinds import RADIUS, AttackEps
from bcgan_tf.settings.presets import AttackSettings, SampleSettings, defense_settings

from . import options, output, session
from .attack import command as attack_command
from .command import Command, FilePath
from .run import SEARCHING

_SUITE = "fast"
# Options of `attack` that its own command line sets, or that do not change what it measures.
_NOT_PASSED_ON = {
    *("models", "dataset", "eps", "n", "suite", "run_dir", "resume", "deterministic", "as_json"),
    *("debug", "config", "batch_size"),
}


@click.command(cls=Command, of_workers=True)
@options.dataset_options()
@click.option(
    "--classifier",
    type=FilePath(),
    required=True,
    help="A trained .keras file, or file.py:function that gives a Keras model.",
)
@options.convention_options()
@options.defense_options()
@options.devices_option()
@options.recipe_options(SampleSettings)
@options.setting_option(
    Setting.of(
        "attack",
        bool,
        True,
        "Measure the robust accuracy before and after, from above, by the suite fast.",
    )
)
@options.setting_option(
    Setting.of("eps", AttackEps, help="Linf radius of those attacks."),
    unset="the defense's, or the data set's",
)
@options.settings_options(AttackSettings, "n", unset="the preset's")
@options.run_options()
@click.pass_context
def command(
    ctx: click.Context,
    dataset: str,
    data_dir: Path | None,
    classifier: Path,
    defense: str,
    defense_options: tuple[str, ...],
    devices: int | None,
    attack: bool,
    eps: float | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    """Harden a classifier: adversarial training, boundary samples, distillation, Defense-GAN.

    A setting of the defense is given as --option NAME=VALUE; `bcgan-tf settings` lists them.

    Ends by measuring the accuracy before and after: of all test images, and under the suite fast
    of --n of them, an upper bound. `attack` gives a verdict.
    """
    options.check_belongs(defense)
    convention = options.chosen_convention(recipe_options)
    custom = recipe_options.pop("custom_objects")
    recipe = options.chosen_recipe(dataset, recipe_options)
    changes = options.named_values(defense_options)
    named = {"classifier": str(classifier), "custom_objects": custom and str(custom)}
    session.check_programs(run_dir, {}, **named)
    defense_settings(defense, dataset, recipe.preset, options=changes)  # before anything is loaded
    images = options.chosen_images(recipe_options)
    data = session.load_data(dataset, data_dir, seed, images, classifier)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf import progress
    from bcgan_tf.defenses.presets import defense as defense_named
    from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
    from bcgan_tf.loading.classifier import load_classifier
    from bcgan_tf.workflows import run as pipeline

    chosen = defense_named(
        defense, dataset, recipe.preset, options=changes, seed=seed, devices=devices
    )
    if eps is None:
        eps = getattr(chosen, "eps", RADIUS.get(dataset))
    left_out = _why_not_attacked(defense, dataset, eps) if attack else ""
    if left_out:
        click.echo(f"note: {left_out}", err=True)
    # The oracle is trained like the preset's classifier; hardening has no option for that.
    own = session.custom_objects(custom)
    original = session.take_in({"original": classifier}, data, convention)["original"]
    config = {
        **(recipe.to_dict() if defense == "bcgan" else {}),
        "dataset": recipe.dataset,
        **images.settings.changed(),
        "preset": recipe.preset,
        "defense_options": [f"{name}={value}" for name, value in changes.items()],
        "seed": seed,
        "deterministic": deterministic,
        "devices": devices,
        "classifier": str(classifier),
        **session.described({"original": classifier}),
        **convention.given,
        **own,
        "defense": defense,
        "attack": attack,
        "eps": eps,
        "n": recipe.n,
    }
    # Before there is a folder, which a corrected command could not begin in.
    chosen.check(original.classifier, data)
    attacks = None
    if attack and eps is not None and not left_out:
        attacks = EvaluationConfig(eps=eps, suite=_SUITE, n=recipe.n, seed=seed, diagnose=False)
        _check_attackable(data, original.classifier, attacks)
    with session.open_run("harden", config, run_dir=run_dir, resume=resume, data=data) as run:
        path = pipeline.harden(run, data, original, chosen, recipe)
        if not cluster.is_chief():
            return
        hardened = load_classifier(path, image_shape=data.image_shape, convention=convention)
        models = {"original": original.classifier, "hardened": hardened}
        files = {"original": classifier, "hardened": path}
        validation = {name: trained_accuracy(file) for name, file in files.items()}
        metrics = pipeline.measure_clean_accuracy(
            run,
            data,
            models,
            validation=validation,
            seed=seed,
            unfinished=True if attacks else None,
        )
        if attacks:
            run.add_metrics(verdict_command=_verdict_command(ctx, classifier, path, attacks.eps))
            metrics = pipeline.evaluate_models(
                run,
                data,
                models,
                attacks,
                validation=validation,
                # What fitted in the training fits here.
                batch_size=min([250, *chosen.batch_sizes()]),
                progress=progress.told,
            )
        pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "classifier": str(path), "run": str(run.path)})
            return
        output.print_metrics(metrics)
        if left_out:
            output.print_line(left_out)
        output.print_paths({"hardened classifier": path, "report": run.path / "report.html"})


def _why_not_attacked(defense: str, dataset: str, eps: float | None) -> str:
    """Why robust accuracy cannot be measured here; "" where it can."""
    if defense == SEARCHING:
        return (
            f"Robust accuracy is not measured: {SEARCHING} searches for every answer; use "
            "`bcgan-tf attack --suite rand`, with few images"
        )
    if eps is None:
        return (
            f"Robust accuracy is not measured: {defense} is for no radius, and {dataset} has no "
            "usual one; give --eps"
        )
    return ""


def _check_attackable(data: Any, original: Any, attacks: EvaluationConfig) -> None:
    from bcgan_tf.workflows.attack import check_attackable

    try:
        check_attackable(data, original, attacks)
    except UserError as error:
        raise UserError(
            f"{error}. With --no-attack it is hardened without measuring its robust accuracy"
        ) from error


def _verdict_command(ctx: click.Context, original: Path, hardened: Path, eps: float) -> str:
    """The command line of `attack` that judges both models, with the options that it shares."""
    words = ["bcgan-tf", "attack", f"original={original}", f"hardened={hardened}"]
    words += ["--dataset", ctx.params["dataset"], "--eps", options.exact_number(eps)]
    for option in attack_command.params:
        name = str(option.name)
        if name in _NOT_PASSED_ON or name not in ctx.params:
            continue
        value = ctx.params[name]
        default = ctx.get_parameter_source(name) in (None, ParameterSource.DEFAULT)
        if default or value == option.get_default(ctx):  # a resumed run names all its settings
            continue
        if isinstance(value, bool):
            words.append((option.opts if value else option.secondary_opts)[-1])
        elif option.multiple:
            words += [word for one in value for word in (option.opts[-1], str(one))]
        elif value is not None:
            many = isinstance(value, tuple) and not hasattr(value, "parse")
            text = ",".join(map(str, value)) if many else str(value)
            words += [option.opts[-1], text]
    return shlex.join(words)
