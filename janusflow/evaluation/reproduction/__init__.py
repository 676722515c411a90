"""What may explain two published scores of one model: settings, their cost, their scores."""
