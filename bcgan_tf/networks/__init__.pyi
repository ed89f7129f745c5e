# The public names, imported on first use.

from .classifiers import mlp as mlp
from .classifiers import paper_cnn as paper_cnn
from .classifiers import resnet18 as resnet18
from .classifiers import small_cnn as small_cnn
from .deep_cnn import deep_cnn as deep_cnn
from .strided_cnn import strided_cnn as strided_cnn
