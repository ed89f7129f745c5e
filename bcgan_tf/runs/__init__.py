"""Run folders: settings, stages, history, environment."""
