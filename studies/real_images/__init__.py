"""The small model's parts on images that nobody here drew (docs/real-images.md)."""
