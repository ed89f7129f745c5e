"""Opening what a command works on: the data, the run's folder, the classifier."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bcgan_tf.distribute import cluster, quiet_start
from bcgan_tf.errors import UserError
from bcgan_tf.files import check_name, file_digest
from bcgan_tf.loading.declared_shape import declared_images
from bcgan_tf.loading.digest import KERAS_SUFFIXES
from bcgan_tf.settings.fields import settings_of
from bcgan_tf.settings.images import ImageSettings

from .command import DEBUG, REPEAT, RUN, from_run
from .options import ImageOptions

if TYPE_CHECKING:
    from bcgan_tf.data import Dataset
    from bcgan_tf.loading.adapted import Adapted
    from bcgan_tf.runs.directory import RunDirectory
    from bcgan_tf.settings.convention import Convention


def load_data(
    dataset: str,
    data_dir: Path | None,
    seed: int,
    images: ImageOptions | None = None,
    model: Path | None = None,
) -> Dataset:
    """The data set; a wrong name or a missing copy is reported before TensorFlow loads.

    Args:
        dataset: its name.
        data_dir: of tensorflow-datasets.
        seed: of the choice of validation images.
        images: how images of a user's own are read; a line says what was.
        model: such images are resized to what this Keras file takes, unless ``images`` says to
            what.
    """
    from bcgan_tf import data

    options, cache_dir = images or ImageOptions()
    known = data.datasets(data_dir=data_dir)
    if ":" in dataset or any(info.name == dataset and info.prepared for info in known):
        start_tensorflow()  # reading will, and its notes are not for users
    wanted = {name: getattr(options, name) for name in settings_of(ImageSettings)}
    if ":" in dataset and model is not None and model.suffix in KERAS_SUFFIXES:
        from bcgan_tf.loading.keras_file import check_is_keras_file

        check_is_keras_file(model)  # before the images, which may only fit because of it
        declared = declared_images(model)
        wanted |= {name: value for name, value in declared.items() if wanted[name] is None}
    found = data.load_dataset(dataset, data_dir=data_dir, seed=seed, cache_dir=cache_dir, **wanted)
    if found.summary:
        click.echo(f"{dataset}: {found.summary['text']}", err=True)
    return found


def named_models(models: tuple[str, ...]) -> dict[str, Path]:
    """Column titles: the names given, else the files', with their folders' where two are equal.

    A SavedModel's is its served name, and that of ``module:function`` the function's.
    """
    named: list[tuple[str, Path]] = []
    for model in models:
        name, given, path = model.partition("=")
        file = Path(path if given else model)
        # As a run calls its columns: the classifier that it trains is the original.
        named.append((name if given else _title(file).replace("classifier", "original"), file))
    names = [name for name, _ in named]
    found = {
        f"{path.parent.name}-{name}" if names.count(name) > 1 else name: path
        for name, path in named
    }
    if len(found) < len(named):
        raise UserError("the models have the same names; give them as NAME=MODEL")
    for name in found:
        check_name(name, "a model (NAME=MODEL)")
    return found


def _title(model: Path) -> str:
    if model.is_dir():
        folder = model.resolve()
        return folder.parent.name if folder.name.isdigit() else folder.name
    return model.stem if model.suffix in KERAS_SUFFIXES else str(model).rpartition(":")[2]


def is_program(model: str | Path) -> bool:
    """Whether code runs when a model is loaded: Python's, or that of a SavedModel's operations."""
    return Path(model).suffix not in KERAS_SUFFIXES


def refuse_unnamed(folder: str | Path, arguments: Iterable[str], otherwise: str = "") -> None:
    """Refuses programs that a run's folder names and the command line does not.

    Args:
        folder: of the run.
        arguments: that name its programs on a command line; none: nothing is refused.
        otherwise: what else the user can do.

    Raises:
        UserError: names them all.
    """
    if arguments := list(arguments):
        raise UserError(
            f"{folder} names models that are programs, which run only if this command names them; "
            f"if you trust them, add {shlex.join(arguments)}{otherwise}"
        )


def check_programs(folder: Path | None, models: Mapping[str, Path], **others: str | None) -> None:
    """Refuses to resume with programs that only the run's folder names.

    Args:
        folder: of the run.
        models: the argument ``models``, all of which must be given where one must be.
        others: options that name one model each.

    Raises:
        UserError: names them all.
    """
    context = click.get_current_context()
    arguments = {"models": [f"{name}={model}" for name, model in models.items()]}
    if not any(map(is_program, models.values())):
        arguments["models"] = []
    for name, model in others.items():
        arguments[name] = (
            ["--" + name.replace("_", "-"), model] if model and is_program(model) else []
        )
    context.meta[REPEAT] = [text for texts in arguments.values() for text in texts]
    unnamed = [texts for name, texts in arguments.items() if from_run(context, name)]
    refuse_unnamed(folder or "", [text for texts in unnamed for text in texts])


def check_publishing(folder: Path | None, saved_models: Path) -> None:
    """Refuses to resume a run whose folder alone says to publish outside of the current one.

    Raises:
        UserError: says what to add to the command.
    """
    if saved_models.resolve().is_relative_to(Path.cwd().resolve()):
        return
    context = click.get_current_context()
    context.meta[REPEAT] = ["--saved-models", str(saved_models)]
    if from_run(context, "saved_models"):
        raise UserError(
            f"{folder} names a folder elsewhere to publish in; if it should be written, add "
            f"{shlex.join(context.meta[REPEAT])}"
        )


def load_sources(
    models: Mapping[str, Path], data: Dataset, convention: Convention
) -> dict[str, Any]:
    """Checked models of any kind: Keras files, SavedModels, and ``module:function``."""
    from bcgan_tf.loading.model import load_model
    from bcgan_tf.loading.usual_conventions import check_with

    found = {}
    for name, model in models.items():
        found[name] = load_model(
            model,
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            convention=convention,
            told=functools.partial(_tell, name),
        )
        check_with(name, found[name], data.train, convention)
    return found


def _tell(name: str, line: str) -> None:
    click.echo(f"{name}: {line}", err=True)


def take_in(paths: Mapping[str, Path], data: Dataset, convention: Convention) -> dict[str, Adapted]:
    """Checked Keras classifiers for the data's images and classes."""
    from bcgan_tf.loading.python_code import keras_model
    from bcgan_tf.loading.usual_conventions import take_in

    found = {}
    for name, path in paths.items():
        model = path if not is_program(path) else keras_model(str(path))
        found[name] = take_in(name, model, data, convention)
    return found


def custom_objects(file: Path | None) -> dict[str, Any]:
    """Runs the code of a model's own layers and makes them known to Keras; for the settings."""
    if file is None:
        return {}
    from bcgan_tf.loading.python_code import register_custom_objects

    register_custom_objects(file)
    return {"custom_objects": str(file), "custom_objects_sha256": file_digest(file)}


def described(models: Mapping[str, Path], **others: str | None) -> dict[str, Any]:
    """The models a run works on, for its settings: resumed with other weights, it is refused.

    Models are of any kind; ``others`` are single ones, by their option.
    """
    from bcgan_tf.loading.model import source_digest

    return {
        "models": {name: str(model) for name, model in models.items()},
        "models_sha256": {name: source_digest(model) for name, model in models.items()},
        **others,
        **described_others(**others),
    }


def described_others(**others: str | None) -> dict[str, Any]:
    """Single models of any kind by their option, each with its digest; None has no entry."""
    from bcgan_tf.loading.model import source_digest

    given = {key: model for key, model in others.items() if model}
    return {**given, **{f"{key}_sha256": source_digest(model) for key, model in given.items()}}


def make_repeatable(seed: int, deterministic: bool) -> None:
    """Seeds Keras, NumPy and Python; with ``deterministic``, TensorFlow's operations too."""
    start_tensorflow()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for devices; what both print is shown with --debug alone."""
    if not click.get_current_context().meta[DEBUG]:
        quiet_start.start_tensorflow()


def join_workers() -> None:
    """Joins the workers of ``TF_CONFIG``, before anything else uses TensorFlow."""
    start_tensorflow()
    from bcgan_tf import distribute

    distribute.join()


@contextlib.contextmanager
def open_run(
    command: str,
    config: Mapping[str, Any],
    *,
    run_dir: Path | None,
    resume: bool,
    data: Dataset | None = None,
) -> Iterator[RunDirectory]:
    """The run's folder, locked, with every setting (``config``) written down.

    Of several workers, those that are not the chief end with the chief.

    ``data``: what was read of a user's own images, and how it was split, is noted too.
    """
    from bcgan_tf.runs.directory import RunDirectory

    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir, the folder of the run to go on with")
    line = shlex.join(["bcgan-tf", *sys.argv[1:]])
    with RunDirectory.create(run_dir, command, config, resume=resume, command_line=line) as run:
        click.get_current_context().meta[RUN] = run.path
        click.echo(f"run: {run.path}", err=True)
        if data is not None and data.summary and cluster.is_chief():
            run.add_metrics(data=data.summary)
        yield run
        cluster.end()
