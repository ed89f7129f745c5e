# The public names, imported on first use: other modules here import this package's face too.

from .adversarial_fit import adversarial as adversarial
from .callbacks import RobustAccuracy as RobustAccuracy
