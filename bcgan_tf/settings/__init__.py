"""Settings: what values they may have, said where they are declared. Loads no TensorFlow."""
