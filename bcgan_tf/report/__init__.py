"""Figures and the one-page report. They take results, never models."""

from __future__ import annotations

from bcgan_tf.report.page import write_report

__all__ = ["write_report"]
