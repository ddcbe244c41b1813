"""Drawing scenes: sources, channel, codes, symbols, noise."""
