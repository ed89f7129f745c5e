"""Training: trainers, one `fit`, checkpoints, callbacks."""
