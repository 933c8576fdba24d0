"""fastai's files: a ResNet without its end is `0.*`, and its classifier of several layers `1.*`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from camcli.core.errors import CheckpointError
from camcli.core.types import Transform
from camcli.models.zoo.architectures import create_network
from camcli.models.zoo.checkpoints import load_into_network
from camcli.models.zoo.deep_heads import ConcatPool, build_head, describe_head, select_layers
from camcli.models.zoo.library import DEFAULT_INPUT_SIZE, LoadedNetwork, Size
from camcli.models.zoo.recognition import find_architecture
from camcli.models.zoo.signatures import Shapes
from camcli.models.zoo.state_tables import StateDict

BODY, HEAD = "0.", "1."
# The numbers of a ResNet's children, from which fastai makes its body.
RESNET_CHILDREN = {"0": "conv1", "1": "bn1", **{str(n + 3): f"layer{n}" for n in range(1, 5)}}
FUNCTION = """# fastai_network.py, then: --model fastai_network:network --checkpoint FILE
from fastai.vision.all import create_vision_model, resnet34  # the architecture of the training
def network():
    return create_vision_model(resnet34, n_out=10)  # and its number of classes"""


def is_fastai_layout(shapes: Shapes) -> bool:
    """Whether the keys are those of fastai's vision learners: a body `0` and a head `1`."""
    has_parts = any(key.startswith(f"{BODY}0.") for key in shapes) and any(
        key.startswith(HEAD) for key in shapes
    )
    return has_parts and all(key.startswith((BODY, HEAD)) for key in shapes)


def load_fastai(path: Path, state: StateDict, size: Size | None) -> LoadedNetwork:
    """The ResNet of a fastai learner.

    Raises CheckpointError for other networks; a note has the lines that build these with fastai.
    """
    name = _find_body_name({key: tuple(value.shape) for key, value in state.items()})
    layers = select_layers(state, HEAD)
    if name is None or not layers:
        raise _create_error(path)
    plain = create_network(f"torchvision:{name}", None)
    body = nn.Sequential(*list(plain.children())[:-2])
    width = plain.state_dict()["fc.weight"].shape[1]
    first = next(iter(layers.values()))["weight"].shape[-1]
    head = build_head(layers, int(first))
    if head is None or first not in (width, 2 * width) or min(layers) < 2:
        raise _create_error(path)
    head[0] = ConcatPool() if first == 2 * width else nn.AdaptiveAvgPool2d(1)
    head[1] = nn.Flatten()
    network = nn.Sequential(body, head)
    load_into_network(network, state, path, f"fastai's {name}")
    note = f"{path.name} is fastai's {name}; {describe_head('1', head)}"
    return LoadedNetwork(name, network, Transform(size or DEFAULT_INPUT_SIZE), note=note)


def _find_body_name(shapes: Shapes) -> str | None:
    """torchvision's name of a ResNet with this body."""
    renamed = {}
    for key, shape in shapes.items():
        number, _, rest = key.removeprefix(BODY).partition(".")
        if key.startswith(BODY):
            renamed[f"{RESNET_CHILDREN.get(number, number)}.{rest}"] = shape
    found = find_architecture(renamed)
    names = found.candidates if found else ()
    return next((n.partition(":")[2] for n in names if n.startswith("torchvision:")), None)


def _create_error(path: Path) -> CheckpointError:
    error = CheckpointError(
        f"{path} has fastai's layout (a body 0 and a head 1), but not of a ResNet that camcli "
        f"can build; build it by the function below"
    )
    error.add_note(FUNCTION)
    return error
