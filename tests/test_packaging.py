"""What is installed is what is in the tree: no more, no less, and no global module `cli`."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import bcgan_tf

ROOT = Path(__file__).parents[1]
SOURCES = {"bcgan_tf": ROOT / "bcgan_tf", "bcgan_tf/cli": ROOT / "cli"}


def _files_in_tree() -> set[str]:
    return {
        f"{prefix}/{file.relative_to(folder).as_posix()}"
        for prefix, folder in SOURCES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_setup_cfg_holds_nothing_that_a_project_table_would_silently_override():
    parser = _setup_cfg()
    assert parser.sections() == ["options"]
    assert set(parser["options"]) == {"package_dir"}


def test_constraints_pin_every_direct_dependency_of_what_is_tested():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)

    def canonical(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()

    project = _project()
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {canonical(name) for name in wanted} <= {canonical(pin) for pin in pins}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel built from a copy of the tree, offline, with the setuptools that is installed."""
    pytest.importorskip("build", reason="needs the dev extra")
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "setup.cfg", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("bcgan_tf", "cli", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(copy)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_tree_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == _files_in_tree()
    assert "bcgan_tf/py.typed" in names


def test_the_wheel_describes_itself(wheel):
    def read(file: str) -> str:
        (name,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{file}"))
        return wheel.read(name).decode()

    metadata = Parser().parsestr(read("METADATA"))
    assert metadata["Name"] == "bcgan-tf"
    assert metadata["Version"] == bcgan_tf.__version__
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"gpu", "tensorboard", "serving", "dev"} <= set(metadata.get_all("Provides-Extra"))
    required = {re.match(r"[\w-]+", r)[0] for r in metadata.get_all("Requires-Dist")}
    assert "importlib_resources" in required  # tensorflow-datasets imports it undeclared
    assert "[console_scripts]\nbcgan-tf = bcgan_tf.cli:main" in read("entry_points.txt")


def test_no_global_module_cli_is_installed(tmp_path):
    # Elsewhere than the tree, whose own folder cli/ would be found in the working directory.
    code = (
        "import importlib.util as u\n"
        "print(u.find_spec('cli') is None, u.find_spec('bcgan_tf.cli') is not None)"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
