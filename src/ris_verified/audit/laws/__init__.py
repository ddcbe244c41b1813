"""Measurements that rules call: one module a law, one list of measurements a function."""
