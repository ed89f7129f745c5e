"""Models from Keras files, SavedModels, and Python code."""
