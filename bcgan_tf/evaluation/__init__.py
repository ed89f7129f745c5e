"""Measures of classifiers and of generated samples."""
