"""Registers this package's classes with transformers' AutoConfig, AutoModel, AutoProcessor,
AutoTokenizer and AutoImageProcessor.

`AutoModel.register` needs the classes themselves, and importing them takes seconds. transformers
lists its own models by name and imports them on demand; this module adds ours to the same lists. So
`import janusflow` stays fast, and the order of the two imports does not matter.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

KIND = "multi_modality"  # model_type in the published config.json
AUTO = "transformers.models.auto"
NAMES = {  # module of transformers: its tables, and what they say of us
    f"{AUTO}.configuration_auto": {"CONFIG_MAPPING_NAMES": "JanusFlowConfig"},
    f"{AUTO}.modeling_auto": {
        "MODEL_MAPPING_NAMES": "JanusFlowModel",
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": "JanusFlowModel",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "JanusFlowModel",  # as the published examples load it
    },
    f"{AUTO}.processing_auto": {"PROCESSOR_MAPPING_NAMES": "VLChatProcessor"},
    f"{AUTO}.tokenization_auto": {"TOKENIZER_MAPPING_NAMES": "JanusFlowTokenizer"},
    f"{AUTO}.image_processing_auto": {
        "IMAGE_PROCESSOR_MAPPING_NAMES": dict.fromkeys(("torchvision", "pil"), "VLMImageProcessor")
    },
}
# model types whose tokenizer_config.json is known to name a class that drops their spaces
WRONG_CLASS = "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS"


def install(package: ModuleType) -> None:
    """Registers the classes of `package` by name, now or when transformers is imported."""
    sys.modules.setdefault(f"transformers.models.{KIND}", package)
    for name in NAMES:
        if name in sys.modules:
            _enter(sys.modules[name])
    if not any(isinstance(finder, _ClassRegistrar) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ClassRegistrar())


def _enter(module: ModuleType) -> None:
    """Adds the package's names to the tables of one of transformers' modules."""
    for table, name in NAMES[module.__name__].items():
        getattr(module, table)[KIND] = name
    getattr(module, WRONG_CLASS, set()).add(KIND)
    for mapping in vars(module).values():  # those made before know no configuration of ours
        known = getattr(mapping, "_reverse_config_mapping", None)
        if isinstance(known, dict):
            known["JanusFlowConfig"] = KIND


class _ClassRegistrar:
    """An import hook that registers the names once a module of transformers has been imported."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:  # noqa: ARG002
        spec = PathFinder.find_spec(name, path) if name in NAMES else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _enter(module)

        spec.loader.exec_module = exec_module
        return spec
