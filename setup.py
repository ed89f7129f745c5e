"""Finds the packages, beside bcgan_tf.cli, which setup.cfg places in cli/."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["bcgan_tf", "bcgan_tf.*"]), "bcgan_tf.cli"])
