# The public names, each declared here alone: bcgan_tf/__init__.py imports them on first use.

from . import attacks as attacks
from . import data as data
from . import defenses as defenses
from . import networks as networks
from . import training as training
from .certification.certified import certified as certified
from .certification.certified import certified_accuracy as certified_accuracy
from .data import load_dataset as load_dataset
from .diagnosis.diagnostics import diagnose as diagnose
from .diagnosis.verdict import verdict as verdict
from .errors import UserError as UserError
from .evaluation.compare import compare as compare
from .evaluation.task import EvaluationTask as EvaluationTask
from .loading.classifier import load_classifier as load_classifier
from .loading.model import load_model as load_model
from .perturbation.minimum_perturbation import minimum_perturbation as minimum_perturbation
from .serving.export import export as export
from .settings.convention import Convention as Convention
from .version import __version__ as __version__
from .workflows.evaluate import evaluate as evaluate
