"""The start of TensorFlow without what it prints."""

from __future__ import annotations

import os
import sys
import tempfile


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, without the notes that both print.

    They come from C++ before any logging level applies, so stderr itself is put aside; when the
    import fails, they are shown.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
