"""The panel and its exact spherical-wave response."""
