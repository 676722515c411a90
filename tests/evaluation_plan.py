"""A small evaluation of a stand-in for a model."""

from janusflow.evaluation.plan import Plan

PLAN = Plan(
    task="scenes",
    model="stand-in",
    weights={"model.safetensors": "0" * 64},
    dtype="float32",
    side=96,
    splits=("test", "long"),
    prompts=2,
    seeds=2,
    batch=3,
)
