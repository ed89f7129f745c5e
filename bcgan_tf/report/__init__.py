"""Figures and self-contained pages. They take results, never models."""

from __future__ import annotations

from bcgan_tf.report.page import write_evaluation_report, write_report

__all__ = ["write_evaluation_report", "write_report"]
