"""What a user calls: pipelines, loading by name, editing, conversation, presets."""
