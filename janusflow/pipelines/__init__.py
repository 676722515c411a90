"""The user's interface: pipelines, loading by name, editing, conversation and presets."""
