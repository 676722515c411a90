"""Sweeps over the settings that may explain a published score: settings, cost and scores."""
