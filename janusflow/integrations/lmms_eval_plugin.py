"""What lmms-eval finds under its entry point `lmms_eval.models`.

Two names for one model. `janusflow` is of lmms-eval's kind "simple", which runs every task of one
round, multiple choice by likelihood included; `janusflow_chat` is of the kind "chat", which keeps
images where a task's messages put them. Both take either family.
"""

from lmms_eval.models.registry_v2 import ModelManifest

WHERE = "janusflow.integrations.lmms_eval_models"


def manifests() -> list[ModelManifest]:
    """The models by name; their file is imported when one of them is asked for."""
    return [
        ModelManifest("janusflow", simple_class_path=f"{WHERE}.Janus", aliases=("janus_pro",)),
        ModelManifest("janusflow_chat", chat_class_path=f"{WHERE}.JanusChat"),
    ]
