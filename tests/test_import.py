"""`import bcgan_tf`: light, lazy, and only on Keras' TensorFlow backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bcgan_tf


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter that finds this very copy of the package."""
    root = str(Path(bcgan_tf.__file__).parents[1])
    env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_import_loads_no_heavy_library():
    done = _python(
        "import bcgan_tf, bcgan_tf.errors, sys; bcgan_tf.UserError\n"
        "print(sorted({'tensorflow', 'keras', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_import_pins_the_backend_that_keras_then_uses():
    done = _python("import os, bcgan_tf; print(os.environ['KERAS_BACKEND'])")
    assert done.stdout.strip() == "tensorflow"


def test_another_backend_in_the_environment_is_refused():
    done = _python("import bcgan_tf", KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: bcgan_tf needs Keras' TensorFlow backend, but KERAS_BACKEND='jax' is set; "
        "unset it or set KERAS_BACKEND=tensorflow"
    )


def test_keras_already_imported_with_another_backend_is_refused():
    # Keras' own settings file can choose a backend too; a stand-in spares an installed JAX.
    done = _python(
        "import sys, types\n"
        "config = types.SimpleNamespace(backend=lambda: 'torch')\n"
        "sys.modules['keras'] = types.SimpleNamespace(config=config)\n"
        "import bcgan_tf"
    )
    assert done.returncode == 1
    assert "already imported with 'torch'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", sorted(set(bcgan_tf.__all__) - {"__version__"}))
def test_every_public_name_is_imported_on_first_use(name):
    value = getattr(bcgan_tf, name)
    assert value.__name__.rpartition(".")[2] == name
    assert name in dir(bcgan_tf)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No bcgan_tf attribute bcgann"):
        bcgan_tf.bcgann  # noqa: B018
