"""``bcgan-tf export``: a SavedModel for TF Serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bcgan_tf.errors import UserError
from bcgan_tf.files import check_name, path_within
from bcgan_tf.settings.convention import Convention

from . import options, output, session
from .command import Command, FilePath

if TYPE_CHECKING:
    from bcgan_tf.runs.directory import RunDirectory


@click.command(cls=Command)
@click.argument("source", type=FilePath(), metavar="RUN_OR_MODEL")
@click.option("--name", help="Name of the served model.  [default: the data set's, or the file's]")
@click.option("--class-names", help="Separated by commas, for a .keras file.  [default: 0,1,2,...]")
@click.option(
    "--saved-models",
    type=FilePath(file_okay=False),
    default=Path("saved_models"),
    help="Where models are published, one integer version a folder.",
)
@click.option(
    "--evaluation",
    type=FilePath(file_okay=False),
    help="The run of `bcgan-tf attack` whose worst case goes on the card.",
)
@options.seed_option("Seed of Defense-GAN's starting points, which an exported model must fix.")
@click.option(
    "--keras-file/--no-keras-file",
    default=True,
    help="Store the Keras file too: it lets attacks on the exported model see its layers.",
)
@click.option(
    "--check-pixels/--no-check-pixels",
    default=True,
    help="Refuse requests with NaN, infinite pixels or pixels outside [0, 1].",
)
@click.option(
    "--max-megapixels",
    type=float,
    default=64.0,
    help="The largest PNG or JPEG that is decoded, in millions of pixels.",
)
@options.convention_options()
@options.data_dir_option()
@options.common_options()
def command(
    source: Path,
    name: str | None,
    class_names: str | None,
    saved_models: Path,
    evaluation: Path | None,
    seed: int,
    keras_file: bool,
    check_pixels: bool,
    max_megapixels: float,
    data_dir: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Export a run's hardened classifier, or a .keras file, for TF Serving."""
    if not source.exists():
        raise UserError(f"{source} does not exist; give a run's folder or a .keras file")
    if (source / "saved_model.pb").is_file():
        raise UserError(
            f"{source} is a SavedModel already, a graph without layers; serve it as it is, or give "
            "the .keras file of the model"
        )
    if name is not None:
        check_name(name, "a served model")
    session.start_tensorflow()
    from bcgan_tf.loading.classifier import adapted_classifier
    from bcgan_tf.loading.digest import model_digest
    from bcgan_tf.runs.directory import RunDirectory
    from bcgan_tf.serving import card as model_card
    from bcgan_tf.serving import export as serving

    names = [part.strip() for part in class_names.split(",")] if class_names else None
    if names and (not all(names) or len(set(names)) < len(names)):
        raise click.UsageError(f"--class-names is {class_names!r}; give each class a name")
    convention = options.chosen_convention(settings)
    session.custom_objects(settings.pop("custom_objects"))
    if source.is_dir():
        if not convention.given:
            convention = Convention.from_dict(RunDirectory.open(source).config)
        file, default, card, names = _of_run(source, names, data_dir)
    else:
        file, default, card = source, source.stem, {}
    name = check_name(name or default, "a served model; give --name")
    if evaluation:
        card = model_card.with_evaluation(card, RunDirectory.open(evaluation), model_digest(file))
    found = adapted_classifier(file, convention=convention)
    classifier = found.given
    names = names or [str(i) for i in range(found.classifier.output_shape[-1])]
    changed: dict[str, Any] = {}
    if fixed := getattr(classifier, "deterministic_for_serving", None):
        classifier, changed = fixed(seed)
        click.echo(f"note: {changed['note']}", err=True)
    path = serving.export(
        classifier,
        saved_models / name,
        class_names=names,
        convention=convention,
        card={**card, **changed},
        keras_file=keras_file,
        check_pixels=check_pixels,
        max_megapixels=max_megapixels,
    )
    if as_json:
        output.print_json({"exported": str(path)})
    else:
        output.print_paths({"exported model": path})


def _of_run(
    folder: Path, names: list[str] | None, data_dir: Path | None
) -> tuple[Path, str, dict[str, Any], list[str]]:
    """The file of a run's classifier, what it is called, its card, and its classes.

    Nothing that the run names is opened: what is read lies in its folder.
    """
    from bcgan_tf.runs.directory import RunDirectory
    from bcgan_tf.serving import card as model_card
    from bcgan_tf.serving import export as serving
    from bcgan_tf.workflows import run as pipeline

    run = RunDirectory.open(folder)
    if run.command in ("attack", "merge"):
        raise UserError(
            f"{folder} is a run of attacks, which makes no classifier; export the run of `harden` "
            f"with --evaluation {folder}"
        )
    model = "original" if run.command == "train" else "hardened"
    card = model_card.of_training(run, model)
    file = path_within(folder, pipeline.CLASSIFIER if model == "original" else pipeline.HARDENED)
    if not file.is_file():
        raise UserError(f"{file} is gone; put it back, or run again in another folder")
    kind = str(card["defense"]["defense"]) if card["defense"] else model
    default = serving.served_name(str(run.metrics().get("dataset")), kind)
    return file, default, card, names or _classes(run, model, data_dir)


def _classes(run: RunDirectory, model: str, data_dir: Path | None) -> list[str]:
    from bcgan_tf import data
    from bcgan_tf.serving import card as model_card

    classes = model_card.trained(run, model).get("classes")
    if isinstance(classes, list) and classes:
        return [str(name) for name in classes]
    # A run's own images lie outside it, and are not looked into.
    dataset = str(run.config.get("dataset"))
    if ":" in dataset:
        raise UserError(f"{run.path} does not say what its classes are called; give --class-names")
    return list(data.load_dataset(dataset, data_dir=data_dir).class_names)
