"""The entry point `lmms_eval.models`, which registers two models with lmms-eval.

`janusflow` is of lmms-eval's kind "simple", which runs every single-turn task, including multiple
choice by likelihood. `janusflow_chat` is of the kind "chat", which keeps images at their places in
the messages. Both load either model family.
"""

from lmms_eval.models.registry_v2 import ModelManifest

WHERE = "janusflow.integrations.lmms_eval_models"


def manifests() -> list[ModelManifest]:
    """Returns the models by name; their file is imported when one of them is used."""
    return [
        ModelManifest("janusflow", simple_class_path=f"{WHERE}.Janus", aliases=("janus_pro",)),
        ModelManifest("janusflow_chat", chat_class_path=f"{WHERE}.JanusChat"),
    ]
