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

Every file is written under another name, flushed to the disk, then renamed, and the files of a
stage are on the disk before ``stages.json`` lists it: a run can be read and resumed after a kill or
a power cut at any moment. A lock lets one process at a time write a run: of several workers
(:mod:`bcgan_tf.distribute.cluster`) the chief, which tells the others where the run is and what is done.

Damage to a single file is noticed, reported in one line, and repaired:

- a JSON file has a copy with a checksum beside it (``.copy-NAME``), which is used instead;
- ``stages.json`` holds the SHA-256 of each file that a stage left; a resume makes the file again,
  from the last checkpoint of a training or the finished parts of an evaluation;
- a checkpoint holds the SHA-256 of its files; the newest undamaged one is used;
- rows of history.csv are restored from the checkpoints.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import BaseFileLock

from bcgan_tf.distribute import cluster
from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    COPY_PREFIX,
    LOCK,
    PARTIAL_PREFIX,
    DamagedFile,
    as_json,
    file_digest,
    is_whole,
    keep_json,
    kept_json,
    lock_folder,
    mend_json,
    note,
    path_within,
    remove,
)
from bcgan_tf.runs.environment import environment
from bcgan_tf.runs.history import History

_CONFIG, _ENV = "config.json", "env.json"
_STAGES, _METRICS, _ELAPSED = "stages.json", "metrics.json", "elapsed.json"


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
        lock: BaseFileLock | None,
    ) -> None:
        self.path = path
        self.command = command
        self.config = config
        self.command_line = command_line
        self.checkpoints = path / "checkpoints"
        self.history = History(path / "history.csv", self._note_elapsed, self.checkpoints)
        self.figures = path / "figures"
        self._lock = lock
        self._stage_started = time.monotonic()
        self._whole: set[str] = set()  # stages whose files were found to be whole

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

        Of several workers all call it, and all but the chief get the chief's run for reading.

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
                writes it. Not on the chief: the chief's settings are others.
        """
        settings = as_json(config)
        if not cluster.is_chief():
            return cls._of_chief(command, settings, command_line)
        folder = _new_folder(Path(root), command, settings) if path is None else Path(path)
        cls.check_startable(folder, resume=resume)  # before a stranger's folder gets a lock file
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
        try:
            cls.check_startable(folder, resume=resume)
            for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
                remove(leftover)
            found = cls.saved_config(folder)
            if found is None:
                found = {"command": command, "command_line": command_line, "config": settings}
                keep_json(folder / _ENV, environment())
                keep_json(folder / _CONFIG, found)
            else:
                _refuse_difference(folder, found, command, settings)
                for name in (_CONFIG, _STAGES, _METRICS):
                    mend_json(folder / name)
                _note_environment(folder)
                cls(folder, command, settings, "", None).history.mend()
            for name in ("checkpoints", "figures"):
                (folder / name).mkdir(exist_ok=True)
        except BaseException:
            lock.release()
            raise
        run = cls(folder, command, settings, found.get("command_line", ""), lock)
        run._stage_started -= run._elapsed_before()
        cluster.by_chief("run", lambda: {"path": str(folder), "command": command, "config": settings})
        return run

    @classmethod
    def _of_chief(cls, command: str, settings: dict[str, Any], command_line: str) -> Self:
        found = cluster.by_chief("run", dict)
        _refuse_difference(Path(found["path"]), found, command, settings)
        return cls(Path(found["path"]), command, settings, command_line, None)

    @classmethod
    def check_startable(cls, path: str | Path, *, resume: bool = False) -> None:
        """Checks, without TensorFlow and without writing, whether :meth:`create` can begin there.

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
        file = Path(path) / _CONFIG
        found = kept_json(file)
        if found is None:
            return None
        kinds = {"command": str, "config": dict, "command_line": str}
        if not all(isinstance(found.get(key, ""), kind) for key, kind in kinds.items()):
            raise UserError(f"{file} is not the config.json of a run; choose another folder")
        return found

    @property
    def resuming_command(self) -> str:
        """The command line that resumes it."""
        command = "attack merge" if self.command == "merge" else self.command
        return f"bcgan-tf {command} --run-dir {shlex.quote(str(self.path))} --resume"

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
        """Whether :meth:`finish_stage` was called for this stage, now or before a resume.

        False, with a line on stderr, if one of its files is damaged or gone: the stage is then
        done again.

        Of several workers all ask, and get the chief's answer.

        Raises:
            UserError: such a file, in a run that is open for reading only.
        """
        return cluster.by_chief(f"stage {name} done", lambda: self._stage_done(name))

    def _stage_done(self, name: str) -> bool:
        stage = self._stages().get(name)
        if stage is None:
            return False
        if name in self._whole:
            return True
        for file in self._damaged(stage):
            if self._lock is None:
                raise UserError(
                    f"{file} is damaged or gone; resume the run, which makes it again: "
                    f"{self.resuming_command}"
                )
            note(f"{file} is damaged or gone; the stage {name} makes it again")
            return False
        self._whole.add(name)
        return True

    def _damaged(self, stage: Mapping[str, Any]) -> Iterator[Path]:
        """The files of a finished stage that are damaged or gone."""
        for name, digest in stage.get("files", {}).items():
            file = path_within(self.path, name)
            if not is_whole(file, digest):
                yield file

    def finish_stage(
        self,
        name: str,
        payload: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Marks a stage as finished, with what a later stage or a resume needs from it.

        Call it when all that the stage writes is on disk. ``seconds`` since the run was opened or
        the last stage ended is noted beside the payload; of a stage that is done again, those of
        the first time stay.

        Args:
            name: of the stage.
            payload: JSON values.
            files: in the run's folder, that the stage left; their digests are noted.
        """
        now = time.monotonic()
        stages = self._stages()
        seconds = stages.get(name, {}).get("seconds", round(now - self._stage_started, 3))
        stages[name] = {"payload": as_json(dict(payload or {})), "seconds": seconds}
        if files:
            stages[name]["files"] = {
                file.relative_to(self.path).as_posix(): file_digest(file) for file in files
            }
        keep_json(self.path / _STAGES, stages)
        self._whole.add(name)
        self._stage_started = now

    def stage_payload(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """What :meth:`finish_stage` was given; of an unfinished stage ``default``, if there is one.

        Raises:
            KeyError: the stage is not finished, and there is no default.
        """
        stages = self._stages()
        if default is not None and name not in stages:
            return default
        return stages[name]["payload"]

    def damaged_files(self) -> list[Path]:
        """The files of all finished stages that are damaged or gone."""
        return [file for stage in self._stages().values() for file in self._damaged(stage)]

    def stage_seconds(self) -> dict[str, float]:
        """Seconds that each finished stage took, in the order they ended.

        Attempts that were killed count up to their last finished epoch.
        """
        return {name: stage["seconds"] for name, stage in self._stages().items()}

    def _note_elapsed(self) -> None:
        seconds = round(time.monotonic() - self._stage_started, 3)
        content = {"stages_finished": len(self._stages()), "seconds": seconds}
        keep_json(self.path / _ELAPSED, content)

    def _elapsed_before(self) -> float:
        """Seconds of the stage that a kill interrupted."""
        try:
            found = self._read(_ELAPSED)
        except DamagedFile:
            found = {"seconds": None}
        seconds = found.get("seconds")
        if found and not _is_number(seconds):
            note(f"{self.path / _ELAPSED} is damaged; the time of the stage begins anew")
            return 0.0
        return seconds or 0.0 if found.get("stages_finished") == len(self._stages()) else 0.0

    def _stages(self) -> dict[str, Any]:
        stages = self._read(_STAGES)
        for name, stage in stages.items():
            if not _is_stage(stage):
                raise DamagedFile(
                    f"{self.path / _STAGES} is damaged at {name}; start a new run in another folder"
                )
        return stages

    def write_metrics(self, metrics: Mapping[str, Any]) -> Path:
        """Writes metrics.json; see :mod:`bcgan_tf.report.page` for its shape."""
        return keep_json(self.path / _METRICS, metrics)

    def add_metrics(self, **parts: Any) -> dict[str, Any]:
        """Writes metrics.json again with these parts; None takes one out. Returns the content."""
        metrics = {**self.metrics(), **as_json(parts)}
        metrics = {name: part for name, part in metrics.items() if part is not None}
        self.write_metrics(metrics)
        return metrics

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; ``{}`` when there is none yet."""
        return self._read(_METRICS)

    def env(self) -> dict[str, Any]:
        """The content of env.json; ``{}`` if it is missing, and with a line on stderr if damaged."""
        return _environment_of(self.path) or {}

    def _read(self, name: str) -> dict[str, Any]:
        return kept_json(self.path / name) or {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_stage(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and isinstance(stage.get("payload"), dict)
        and _is_number(stage.get("seconds"))
        and isinstance(stage.get("files", {}), dict)
        and all(isinstance(digest, str) for digest in stage.get("files", {}).values())
    )


def _environment_of(folder: Path) -> dict[str, Any] | None:
    """The content of env.json; None if it is missing, and with a line on stderr if damaged."""
    try:
        return kept_json(folder / _ENV)
    except DamagedFile:
        note(f"{folder / _ENV} is damaged; what the run was made with is not known")
        return None


def _note_environment(folder: Path) -> None:
    """Keeps the environment a run started in, and each other one it was resumed in."""
    now = environment()
    known = _environment_of(folder)
    if known is None:
        keep_json(folder / _ENV, now)
        return
    resumed = known.pop("resumed_in", [])
    if not isinstance(resumed, list):
        resumed = []
    if now != known and now not in resumed:
        resumed = [*resumed, now]
    keep_json(folder / _ENV, {**known, **({"resumed_in": resumed} if resumed else {})})


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
    """Whether the folder is empty but for what a start leaves that was killed early."""
    leftovers = (LOCK, _ENV, f"{COPY_PREFIX}{_ENV}")
    return all(
        item.name in leftovers or item.name.startswith(PARTIAL_PREFIX) for item in folder.iterdir()
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
