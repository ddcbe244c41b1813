"""Finding sources: spectrum, Newton, maximum likelihood, order, matching, bounds."""
