"""Reading foreign source as syntax trees: names, bindings, configuration, randomness, never importing it."""
