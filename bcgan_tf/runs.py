"""A run is a folder that holds all that is needed to repeat and to resume it.

::

    runs/20250131-101500-run-mnist/
        config.json     the command and every setting, resolved: nothing is left to a default
        env.json        Python, package versions, processors, devices (no host name, no paths)
        stages.json     which stages are finished, and what each left behind
        history.csv     stage, epoch, metric, value: one row a number, as training goes
        elapsed.json    the seconds of a stage that is not finished, up to its last epoch
        metrics.json    the results (``bcgan_tf.report.page`` describes it)
        checkpoints/    figures/    report.html

Every JSON file is replaced at once (temporary file, fsync, rename), so that a run killed at any
moment can be read, and resumed. One process at a time writes a run: a lock says so.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from bcgan_tf.environment import environment
from bcgan_tf.errors import UserError
from bcgan_tf.files import PARTIAL_SUFFIX, FolderLock, as_json, read_json, write_json
from bcgan_tf.history import History

_LOCK = ".lock"
_ELAPSED = "elapsed.json"


class RunDirectory:
    """A run's folder, open for writing (locked) or for reading only.

    Made by :meth:`create` or :meth:`open`, and closed by ``with`` or :meth:`close`::

        with RunDirectory.create(None, "run", {"dataset": "digits", "seed": 0}) as run:
            if not run.stage_done("train"):
                ...
                run.finish_stage("train", {"seconds": 12.5})

    Attributes:
        path: the folder.
        command: the command that made it, such as ``"run"``.
        config: every setting of the run, as JSON values.
        command_line: a command line that repeats it, or ``""``.
        history: the numbers of every epoch (history.csv).
        checkpoints: the folder of what the stages resume from.
        figures: the folder of pictures.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        config: dict[str, Any],
        command_line: str,
        lock: FolderLock | None,
    ) -> None:
        self.path = path
        self.command = command
        self.config = config
        self.command_line = command_line
        self.history = History(path / "history.csv", self._note_elapsed)
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"
        self._lock = lock
        self._stage_started = time.monotonic()

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        command: str,
        config: Mapping[str, Any],
        *,
        resume: bool = False,
        command_line: str = "",
        root: str | Path = "runs",
    ) -> Self:
        """Starts a run in a new or empty folder, or with ``resume`` takes one up again.

        Args:
            path: the folder; None makes ``root/<stamp>-<command>-<dataset>``.
            command: what the run does, such as ``"harden"``.
            config: every setting that the result depends on, as JSON values; it should have a
                key ``dataset``.
            resume: continue a run that ``path`` holds. A missing or empty folder is a new run:
                the same call then serves the first and every later try.
            command_line: a command line that repeats the run, kept for the report.
            root: where folders are made when ``path`` is None.

        Raises:
            UserError: the folder is not empty (without ``resume``), is no run, holds a run with
                another command or other settings (the keys are named), or another process
                writes it.
        """
        settings = as_json(config)
        folder = _new_folder(Path(root), command, settings) if path is None else Path(path)
        cls.check_startable(folder, resume=resume)  # before a stranger's folder gets a lock file
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder / _LOCK)
        try:
            cls.check_startable(folder, resume=resume)
            for leftover in folder.glob(f".*{PARTIAL_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            found = cls.saved_config(folder)
            if found is None:
                found = {"command": command, "command_line": command_line, "config": settings}
                write_json(folder / "env.json", environment())
                write_json(folder / "config.json", found)
            else:
                _refuse_difference(folder, found, command, settings)
                _note_environment(folder)
            for name in ("checkpoints", "figures"):
                (folder / name).mkdir(exist_ok=True)
        except BaseException:
            lock.release()
            raise
        run = cls(folder, command, settings, found.get("command_line", ""), lock)
        run._stage_started -= run._elapsed_before()
        return run

    @classmethod
    def check_startable(cls, path: str | Path, *, resume: bool = False) -> None:
        """Looks, without TensorFlow and without a trace, whether :meth:`create` can begin there.

        Raises:
            UserError: it is a file, holds something else, or holds a run and ``resume`` is False.
        """
        folder = Path(path)
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another folder for the run")
        if _holds_nothing(folder):
            return
        if cls.saved_config(folder) is None:
            raise UserError(f"{folder} is not empty and holds no run; choose another --run-dir")
        if not resume:
            raise UserError(
                f"{folder} holds a run; pass --resume to go on with it, or choose another --run-dir"
            )

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens a run for reading: no lock, so that a run in progress can be looked at.

        Raises:
            UserError: the folder is missing, is no run, or a file is damaged.
        """
        folder = Path(path)
        found = cls.saved_config(folder)
        if found is None:
            raise UserError(f"{folder} holds no run (it has no config.json)")
        return cls(folder, found["command"], found["config"], found.get("command_line", ""), None)

    @staticmethod
    def saved_config(path: str | Path) -> dict[str, Any] | None:
        """``{"command", "command_line", "config"}`` of the run in a folder; None if there is none.

        Raises:
            UserError: config.json is damaged.
        """
        file = Path(path) / "config.json"
        if not file.exists():
            return None
        found = read_json(file)
        if not isinstance(found.get("command"), str) or not isinstance(found.get("config"), dict):
            raise UserError(f"{file} is not the config.json of a run; choose another folder")
        return found

    def close(self) -> None:
        """Releases the lock; the object can still be read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def stage_done(self, name: str) -> bool:
        """Whether :meth:`finish_stage` was called for this stage, now or before a resume."""
        return name in self._stages()

    def finish_stage(self, name: str, payload: Mapping[str, Any] | None = None) -> None:
        """Marks a stage as finished, with what a later stage or a resume needs from it.

        Call it when all that the stage writes is on disk. ``seconds`` since the run was opened or
        the last stage ended is noted beside the payload.
        """
        now = time.monotonic()
        stages = self._stages()
        stages[name] = {
            "payload": as_json(dict(payload or {})),
            "seconds": round(now - self._stage_started, 3),
        }
        write_json(self.path / "stages.json", stages)
        self._stage_started = now

    def stage_payload(self, name: str) -> dict[str, Any]:
        """What :meth:`finish_stage` was given.

        Raises:
            KeyError: the stage is not finished.
        """
        return self._stages()[name]["payload"]

    def stage_seconds(self) -> dict[str, float]:
        """Seconds that each finished stage took, in the order they ended.

        Of tries that were killed, up to their last finished epoch; what came after was lost.
        """
        return {name: stage["seconds"] for name, stage in self._stages().items()}

    def _note_elapsed(self) -> None:
        seconds = round(time.monotonic() - self._stage_started, 3)
        content = {"stages_finished": len(self._stages()), "seconds": seconds}
        write_json(self.path / _ELAPSED, content)

    def _elapsed_before(self) -> float:
        """Seconds of the stage that a kill interrupted."""
        found = self._read(_ELAPSED)
        of_this_stage = found.get("stages_finished") == len(self._stages())
        return found["seconds"] if of_this_stage else 0.0

    def _stages(self) -> dict[str, Any]:
        return self._read("stages.json")

    def write_metrics(self, metrics: Mapping[str, Any]) -> Path:
        """Writes metrics.json; see :mod:`bcgan_tf.report.page` for its shape."""
        return write_json(self.path / "metrics.json", metrics)

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; ``{}`` when there is none yet."""
        return self._read("metrics.json")

    def env(self) -> dict[str, Any]:
        """The content of env.json; ``{}`` when there is none."""
        return self._read("env.json")

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / name
        return read_json(file) if file.exists() else {}


def _note_environment(folder: Path) -> None:
    """Keeps the environment a run started in, and each other one it was resumed in."""
    file = folder / "env.json"
    now = environment()
    if not file.exists():
        write_json(file, now)
        return
    known = read_json(file)
    resumed = known.pop("resumed_in", [])
    if now != known and now not in resumed:
        write_json(file, {**known, "resumed_in": [*resumed, now]})


def _new_folder(root: Path, command: str, config: Mapping[str, Any]) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    kind, _, rest = str(config.get("dataset", "")).partition(":")  # folder:PATH keeps PATH's end
    dataset = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{kind}-{Path(rest).name}" if rest else kind)
    name = "-".join(filter(None, (stamp, command, dataset.strip("-."))))
    root.mkdir(parents=True, exist_ok=True)
    for count in range(1, 1000):
        folder = root / (name if count == 1 else f"{name}-{count}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{root} holds 999 runs of this second; pass --run-dir")


def _holds_nothing(folder: Path) -> bool:
    """Whether a run can start here: at most what a start killed before config.json leaves."""
    leftovers = (_LOCK, "env.json")
    return all(
        item.name in leftovers or item.name.endswith(PARTIAL_SUFFIX) for item in folder.iterdir()
    )


def _refuse_difference(
    folder: Path, found: dict[str, Any], command: str, config: dict[str, Any]
) -> None:
    if found["command"] != command:
        raise UserError(
            f"{folder} holds a run of '{found['command']}', not of '{command}'; "
            "choose another --run-dir"
        )
    saved = found["config"]
    missing = object()
    differing = [
        f"{key} ({_shown(saved, key)} there, {_shown(config, key)} now)"
        for key in [*saved, *(k for k in config if k not in saved)]
        if saved.get(key, missing) != config.get(key, missing)
    ]
    if differing:
        raise UserError(
            f"{folder} was started with other settings: {', '.join(differing)}; "
            "resume with the same ones, or choose another --run-dir"
        )


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "not set"
