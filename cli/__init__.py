"""The command ``bcgan-tf``: it parses, calls the library, and prints.

A command's module is imported when it is asked for, and TensorFlow inside the commands, so that
``--help`` answers at once.
"""

from __future__ import annotations

import importlib

import click

import bcgan_tf

# Command -> the line that `bcgan-tf --help` shows; its module is bcgan_tf.cli.<command>.
COMMANDS = {
    "run": "Train, harden, attack, export and report, in a row.",
    "train": "Train a classifier on clean data.",
    "harden": "Make a classifier robust: adversarial training, boundary samples and more.",
    "attack": "Attack classifiers and report their accuracy.",
    "report": "Write a run's report anew, or compare several runs.",
    "export": "Export a classifier for TF Serving.",
    "toy": "The paper's Figure 2: boundary samples of two Gaussians.",
    "boundary": "The paper's Figure 4: decision boundaries of two classifiers.",
    "reproduce": "The paper's tables and figures, from training to the page.",
    "datasets": "List the data sets, and which are there.",
    "settings": "List every setting, its default and its range.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"bcgan_tf.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bcgan_tf.__version__, prog_name="bcgan-tf")
def main() -> None:
    """Harden Keras image classifiers against adversarial examples, and measure the result."""
