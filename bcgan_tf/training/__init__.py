"""Training: trainers, one `fit`, checkpoints, callbacks; `adversarial` for a user's own `fit`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
