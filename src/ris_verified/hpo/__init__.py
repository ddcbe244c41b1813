"""Hyper-parameter search that judges by localisation."""
