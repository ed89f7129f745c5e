# The public names, imported on first use: other modules here import this package's face too.

from .adversarial import adversarial as adversarial
from .callbacks import RobustAccuracy as RobustAccuracy
