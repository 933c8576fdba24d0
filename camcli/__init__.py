"""camcli: what did this network look at?

    import camcli
    model = camcli.load("resnet50")
    (result,) = camcli.explain(model, "cat.jpg", method="layercam", layers="stage3..5")
    result.overlay().save("overlay.png")

Every name is imported when it is first used, so `import camcli` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camcli.api.compare_methods import MethodComparison as MethodComparison
    from camcli.api.compare_methods import compare as compare
    from camcli.api.explain_images import explain as explain
    from camcli.api.explanation import Explanation as Explanation
    from camcli.api.load import load as load
    from camcli.api.load import wrap as wrap
    from camcli.core.errors import CamcliError as CamcliError
    from camcli.core.errors import CheckpointError as CheckpointError
    from camcli.core.errors import ImageError as ImageError
    from camcli.core.errors import LabelsError as LabelsError
    from camcli.core.errors import LayerError as LayerError
    from camcli.core.errors import MethodError as MethodError
    from camcli.core.errors import ModelError as ModelError
    from camcli.core.errors import TargetError as TargetError
    from camcli.core.errors import UsageError as UsageError
    from camcli.core.types import Box as Box
    from camcli.core.types import Failure as Failure
    from camcli.core.types import Layer as Layer
    from camcli.evaluation.faithfulness.faithfulness_evaluation import (
        evaluate_faithfulness as evaluate_faithfulness,
    )
    from camcli.evaluation.faithfulness.faithfulness_report import (
        FaithfulnessReport as FaithfulnessReport,
    )
    from camcli.evaluation.localization_evaluation import (
        evaluate_localization as evaluate_localization,
    )
    from camcli.evaluation.localization_report import LocalizationReport as LocalizationReport
    from camcli.methods.registry import Method as Method
    from camcli.methods.registry import method as method
    from camcli.models.model import Model as Model
    from camcli.review.stored_run import StoredRun as StoredRun
    from camcli.review.stored_run import open_run as open_run

__version__ = "0.1.0"

_MODULES = {
    "camcli.api.compare_methods": ("MethodComparison", "compare"),
    "camcli.api.explain_images": ("explain",),
    "camcli.api.explanation": ("Explanation",),
    "camcli.api.load": ("load", "wrap"),
    "camcli.core.errors": (
        *("CamcliError", "CheckpointError", "ImageError", "LabelsError", "LayerError"),
        *("MethodError", "ModelError", "TargetError", "UsageError"),
    ),
    "camcli.core.types": ("Box", "Failure", "Layer"),
    "camcli.evaluation.faithfulness.faithfulness_evaluation": ("evaluate_faithfulness",),
    "camcli.evaluation.faithfulness.faithfulness_report": ("FaithfulnessReport",),
    "camcli.evaluation.localization_evaluation": ("evaluate_localization",),
    "camcli.evaluation.localization_report": ("LocalizationReport",),
    "camcli.methods.registry": ("Method", "method"),
    "camcli.models.model": ("Model",),
    "camcli.review.stored_run": ("StoredRun", "open_run"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_MODULE_OF, "methods"])


def __getattr__(name: str) -> Any:
    if name == "methods":  # a package that can be called: `camcli.methods()` lists the methods
        return import_module("camcli.methods")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'camcli' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
