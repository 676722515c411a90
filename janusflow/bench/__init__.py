"""Speed measurements of pipelines, solvers and training."""
