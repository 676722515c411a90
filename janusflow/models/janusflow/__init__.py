"""The JanusFlow model: configuration, network and processor."""
