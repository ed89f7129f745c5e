"""SavedModels for TF Serving: export, signatures, card."""
