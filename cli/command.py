"""What all commands share: settings from files and variables, and errors in one line."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf import interruption
from bcgan_tf.distribute import cluster
from bcgan_tf.errors import UserError
from bcgan_tf.files import DiskFull, disk_full, note

INTERRUPTED, TERMINATED = 130, 143
# Key of ctx.meta under which a command's run folder stands once it is open.
RUN = "bcgan_tf.run"
DEBUG = "bcgan_tf.debug"
# What the run that is resumed says of the options.
_SAVED = "bcgan_tf.saved"
# Arguments that a resumed run's folder may not give: they must be on every command line.
REPEAT = "bcgan_tf.repeat"
# And where results go.
STDOUT = "bcgan_tf.stdout"
# What is wrong with the values of options, a sentence each.
FAULTS = "bcgan_tf.faults"
_NOT_SETTINGS = {"config", "help"}
# What no run's folder may say of a command: where it reads and writes, and how it tells.
_NEVER_SAVED = {*_NOT_SETTINGS, "run_dir", "resume", "data_dir", "cache_dir", "as_json", "debug"}
# What a TOML value must be for an option that click would otherwise convert without a word.
_TOML_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "integer": ("an integer", (int,)),
    "boolean": ("true or false", (bool,)),
    "number": ("a number, or a fraction as a string", (int, float, str)),
    "numbers": ("a list of numbers, or a string of them", (list, str, int, float)),
}


class FilePath(click.Path):
    """A path; not an empty text, which would stand for the working directory."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("the path is empty", param, ctx)
        if not str(value).isprintable():  # NUL, the end of a line, bytes that are no UTF-8
            self.fail(f"{str(value)!r} is no path of printable characters; rename it", param, ctx)
        return super().convert(value, param, ctx)


class Command(click.Command):
    """A command whose options also come from ``BCGAN_TF_*`` variables and ``--config FILE``.

    Precedence: flag, variable, file, default. A :class:`UserError`, or a disk that is full, is one
    line on stderr and exit code 1; ``--debug`` shows where it came from. SIGINT and SIGTERM end it
    where it can be taken up again, with a line that says how, and exit codes 130 and 143.

    Args:
        of_workers: the workers that ``TF_CONFIG`` names do it together.
    """

    def __init__(self, *args: Any, of_workers: bool = False, **kwargs: Any) -> None:
        self.of_workers = of_workers
        kwargs.setdefault("context_settings", {})["help_option_names"] = ["-h", "--help"]
        kwargs["context_settings"]["show_default"] = True
        super().__init__(*args, **kwargs)
        for option in self._settings():
            names = dict.fromkeys((_flag(option), option.name or ""))
            option.envvar = [f"BCGAN_TF_{name.upper()}" for name in names]

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
        # ValueError: no UTF-8, no TOML, or a number of thousands of digits.
        except (OSError, ValueError, RecursionError) as error:
            raise click.UsageError(f"{path} is no readable TOML file: {error}", ctx) from error
        flags = {_flag(option): option.name or "" for option in self._settings()}
        found: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            found[flags.get(name, name)] = value
        known = {option.name: option for option in self._settings()}
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise click.UsageError(
                f"{path}: no option of `{ctx.info_name}` is named {', '.join(unknown)}; "
                f"its options are listed by `{ctx.command_path} --help`",
                ctx,
            )
        for key, value in found.items():
            kind, types = _TOML_TYPES.get(known[key].type.name, ("a string", (str,)))
            if known[key].multiple:
                kind, types = "a list of strings", (list,)
            mixed = isinstance(value, bool) != (bool in types)
            if not isinstance(value, types) or mixed or (known[key].multiple and not _texts(value)):
                raise click.UsageError(f"{path}: {key} must be {kind}, not {value!r}", ctx)
        ctx.default_map = {**(ctx.default_map or {}), **self._as_defaults(found)}

    def take_up(self, ctx: click.Context, folder: Path) -> None:
        """Makes the settings of a run that is resumed the defaults of this command's options."""
        from bcgan_tf.runs.directory import RunDirectory

        try:
            found = RunDirectory.saved_config(folder)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        if found is not None and found["command"] == ctx.info_name:
            names = {param.name for param in self.params} - _NEVER_SAVED
            saved = {key: value for key, value in found["config"].items() if key in names}
            ctx.meta[_SAVED] = self._as_defaults(saved)
            ctx.default_map = {**ctx.meta[_SAVED], **(ctx.default_map or {})}

    def _as_defaults(self, values: dict[str, Any]) -> dict[str, Any]:
        """Settings as click takes them from a default: lists as text, models as NAME=PATH."""
        repeated = {param.name for param in self.params if getattr(param, "multiple", False)}
        defaults = {}
        for key, value in values.items():
            if isinstance(value, list) and key not in repeated:
                value = ",".join(map(str, value))
            elif isinstance(value, dict):
                value = [f"{name}={path}" for name, path in value.items()]
            defaults[key] = value
        return defaults

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        faults = list(dict.fromkeys(ctx.meta.get(FAULTS, ())))
        for name, value in ctx.params.items():
            for part in value if isinstance(value, tuple | list) else [value]:
                if isinstance(part, str) and not (part.strip() and part.isprintable()):
                    faults.append(f"{name} is {part!r}; give a text of printable characters")
        if faults and not ctx.resilient_parsing:
            raise click.UsageError(". ".join(faults), ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        # TensorFlow's notes are not for users; a user who set the level keeps it.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        debug = ctx.params.pop("debug", False)
        note.cache_clear()  # what an earlier command of this process said
        ctx.meta[DEBUG] = debug
        try:
            if self.of_workers and cluster.named() is not None:
                from .session import join_workers

                join_workers()
                cluster.watch_chief(lambda: _lost_worker(ctx).show())
            if ctx.params.get("run_dir") is not None and cluster.is_chief():
                from bcgan_tf.runs.directory import RunDirectory

                RunDirectory.check_startable(ctx.params["run_dir"], resume=ctx.params["resume"])
            ctx.meta[STDOUT] = sys.stdout
            # What libraries print is no result.
            with interruption.listening(), contextlib.redirect_stdout(sys.stderr):
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            ended = isinstance(error, interruption.Terminated)
            what = "Terminated" if ended else "Interrupted"
            click.echo(f"{what}{_how_to_go_on(ctx)}", err=True)
            ctx.exit(TERMINATED if ended else INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has gone: click knows what to do
            raise
        except (UserError, OSError) as error:
            if debug:
                raise
            line = " ".join(str(error).split())
            if disk_full(error):
                line = line if isinstance(error, DiskFull) else _full(error, ctx)
                line += _how_to_go_on(ctx)
            raise click.ClickException(line) from error
        except MemoryError as error:
            if debug:
                raise
            hint = "choose fewer or smaller images, a smaller model or batch size"
            raise click.ClickException(f"there is not enough memory; {hint}") from error
        except Exception as error:
            # By its name: TensorFlow need not be loaded to find out what an error is not.
            if debug:
                raise
            if disk_full(error):
                line = _full(error, ctx) + _how_to_go_on(ctx)
                raise click.ClickException(line) from error
            if cluster.lost_worker(error):
                raise _lost_worker(ctx) from error
            if type(error).__name__ != "ResourceExhaustedError":
                raise
            hint = "choose a smaller batch size or fewer samples"
            raise click.ClickException(f"the device has not enough memory; {hint}") from error


def _texts(value: list[Any]) -> bool:
    return all(isinstance(part, str) for part in value)


def from_run(ctx: click.Context, name: str) -> bool:
    """Whether an option is as the resumed run says, and not as the user says now."""
    saved, missing = ctx.meta.get(_SAVED, {}), object()
    by_default = ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP
    return by_default and (ctx.default_map or {}).get(name) is saved.get(name, missing)


def _flag(option: click.Option) -> str:
    """An option's name as the user knows it, without dashes: ``json`` of ``--json``."""
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def _full(error: BaseException, ctx: click.Context) -> str:
    """What to say of a full disk: of the file, or else of the folder that is being written."""
    file = getattr(error, "filename", None)
    if file is not None:
        return f"No space left on device: {str(file)!r}; make room on its disk"
    folder = ctx.meta.get(RUN, tempfile.gettempdir())
    return f"No space left on device; make room on the disk of {folder}"


def _lost_worker(ctx: click.Context) -> click.ClickException:
    line = (
        "another worker has ended or cannot be reached; start the same command again on all "
        "workers, with --resume"
    )
    return click.ClickException(line + _how_to_go_on(ctx))


def _how_to_go_on(ctx: click.Context) -> str:
    """The command that resumes the run; nothing where no run was begun."""
    run = ctx.meta.get(RUN)
    if run is None:
        return ""
    # From `bcgan-tf` on: `attack merge` is a command of two words.
    again = [*ctx.command_path.split(), "--run-dir", str(run), "--resume"]
    # No settings of the run: they change no result.
    for name in ("data_dir", "cache_dir", "batch_size", "workers"):
        if ctx.params.get(name) and ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
            again += ["--" + name.replace("_", "-"), str(ctx.params[name])]
    again += ctx.meta.get(REPEAT, ())
    return f". Go on with: {shlex.join(again)}"


def _read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is not None and isinstance(ctx.command, Command):
        ctx.command.read_config(ctx, path)


def take_up_run(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Callback of --run-dir and --resume: with both, what is not given is as it was before."""
    ctx.meta[f"bcgan_tf.{param.name}"] = value
    folder, resume = ctx.meta.get("bcgan_tf.run_dir"), ctx.meta.get("bcgan_tf.resume")
    if folder is not None and resume and isinstance(ctx.command, Command):
        ctx.command.take_up(ctx, folder)
    return value


config_option = click.option(
    "--config",
    type=FilePath(),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with options of this command, such as `seed = 8`.",
)
