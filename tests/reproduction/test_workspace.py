"""The cache of a reproduction, with several processes at work in it."""

from __future__ import annotations

from bcgan_tf.reproduction import workspace as module


def test_a_run_that_another_process_works_on_is_waited_for(workspace, monkeypatch, capsys):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    first = workspace.open_run("train", "one", {"epochs": 3})
    first.finish_stage("train", {"found": 1})
    looks = []

    def look(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            first.close()

    monkeypatch.setattr(module.time, "sleep", look)
    with workspace.open_run("train", "one", {"epochs": 3}) as second:
        assert second.stage_payload("train") == {"found": 1} and len(looks) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("waiting for the process that works on digits-quick-one-")
