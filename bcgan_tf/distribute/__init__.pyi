# The public names, imported on first use: loading the package alone loads no TensorFlow.

from .strategies import check_batch_size as check_batch_size
from .strategies import join as join
from .strategies import replicated as replicated
from .strategies import scope as scope
from .strategies import strategy as strategy
from .workers import workers as workers
