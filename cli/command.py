"""What all commands share: settings from files and variables, and errors in one line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click

from bcgan_tf.errors import UserError

INTERRUPTED = 130
_NOT_SETTINGS = {"config", "help"}


class Command(click.Command):
    """A command whose options also come from ``BCGAN_TF_*`` variables and ``--config FILE``.

    Precedence: flag, variable, file, default. A :class:`UserError`, or a disk that is full, is one
    line on stderr and exit code 1; ``--debug`` shows where it came from.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {})["help_option_names"] = ["-h", "--help"]
        kwargs["context_settings"]["show_default"] = True
        super().__init__(*args, **kwargs)
        for option in self._settings():
            option.envvar = f"BCGAN_TF_{(option.name or '').upper()}"

    def _settings(self) -> list[click.Option]:
        return [
            p for p in self.params if isinstance(p, click.Option) and p.name not in _NOT_SETTINGS
        ]

    def read_config(self, ctx: click.Context, path: Path) -> None:
        """Makes a TOML file's values the defaults of this command's options.

        Raises:
            click.UsageError: the file is unreadable, or has a key that is no option.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise click.UsageError(f"{path} is no readable TOML file: {error}", ctx) from error
        found = {key.replace("-", "_"): value for key, value in values.items()}
        known = {option.name for option in self._settings()}
        unknown = sorted(set(found) - known)
        if unknown:
            raise click.UsageError(
                f"{path}: no option of `{ctx.info_name}` is named {', '.join(unknown)}; "
                f"its options are listed by `{ctx.command_path} --help`",
                ctx,
            )
        defaults = {
            key: ",".join(map(str, value)) if isinstance(value, list) else value
            for key, value in found.items()
        }
        ctx.default_map = {**(ctx.default_map or {}), **defaults}

    def invoke(self, ctx: click.Context) -> Any:
        # TensorFlow's start-up notes are not for users; a user who set the level keeps it.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        debug = ctx.params.pop("debug", False)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            hint = "; go on with --run-dir and --resume" if "resume" in ctx.params else ""
            click.echo(f"Interrupted{hint}", err=True)
            ctx.exit(INTERRUPTED)
        except (UserError, OSError) as error:
            if debug:
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


def _read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is not None and isinstance(ctx.command, Command):
        ctx.command.read_config(ctx, path)


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with options of this command, such as `gan-epochs = 8`.",
)
