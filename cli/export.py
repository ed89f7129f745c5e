"""``bcgan-tf export``: a SavedModel for TF Serving."""

from __future__ import annotations

from pathlib import Path

import click

from bcgan_tf.errors import UserError

from . import options, output, session
from .command import Command, FilePath


@click.command(cls=Command)
@click.argument("source", type=FilePath(), metavar="RUN_OR_MODEL")
@click.option("--name", help="Of the served model.  [default: the data set's, or the file's]")
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
@options.seed_option("Of Defense-GAN's starting points, which an exported model must fix.")
@click.option(
    "--keras-file/--no-keras-file",
    default=True,
    help="Store the Keras file too: it lets attacks on the exported model see its layers.",
)
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
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Export a run's hardened classifier, or a .keras file, for TF Serving."""
    if not source.exists():
        raise UserError(f"{source} does not exist; give a run's folder or a .keras file")
    session.start_tensorflow()
    from bcgan_tf import model_card, pipeline, serving
    from bcgan_tf.classifier_io import load_classifier
    from bcgan_tf.model_source import source_digest
    from bcgan_tf.runs import RunDirectory

    file = source
    if source.is_dir():
        file, classifier, names, card, default = _of_run(source, data_dir)
    else:
        classifier = load_classifier(source)
        names = [str(i) for i in range(classifier.output_shape[-1])]
        card, default = {}, source.stem
    if class_names:
        names = [part.strip() for part in class_names.split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise click.UsageError(f"--class-names is {class_names!r}; give each class a name")
    if evaluation:
        card = model_card.with_evaluation(card, RunDirectory.open(evaluation), source_digest(file))
    classifier, changed = pipeline.servable(classifier, seed=seed)
    if changed:
        click.echo(f"note: {changed['note']}", err=True)
    path = serving.export(
        classifier,
        saved_models / (name or default),
        class_names=names,
        card={**card, **changed},
        keras_file=keras_file,
    )
    if as_json:
        output.print_json({"exported": str(path)})
    else:
        output.print_paths({"exported model": path})


def _of_run(folder: Path, data_dir: Path | None):
    from bcgan_tf import data, model_card, pipeline
    from bcgan_tf.classifier_io import load_classifier
    from bcgan_tf.runs import RunDirectory

    run = RunDirectory.open(folder)
    file = folder / pipeline.HARDENED
    model = "hardened"
    if not file.exists() and run.command == "train":
        file, model = folder / pipeline.CLASSIFIER, "original"
    if not file.exists():
        raise UserError(
            f"{folder} holds no {'classifier' if run.command == 'train' else 'hardened classifier'}"
            "; finish the run first, or give a .keras file"
        )
    dataset = data.load(run.config["dataset"], data_dir=data_dir)
    card = model_card.of_training(run, model)
    kind = (card["defense"] or {}).get("defense", "bcgan") if model == "hardened" else model
    return file, load_classifier(file), list(dataset.class_names), card, f"{dataset.name}-{kind}"
