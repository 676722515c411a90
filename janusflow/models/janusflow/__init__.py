"""JanusFlow: configuration, network, processing."""
