"""Second implementations of the methods, which the tests compare with camcli's.

They follow the papers' equations pixel by pixel and channel by channel, in double precision, for
one image and one class at a time. They are slow on purpose, and share no code with camcli.

Activations a and gradients g are (C, H, W), weights w (C,), maps m and f (H, W). A block's softmax
attention is (heads, N, N).
"""

from reference import (
    activation,
    attention,
    cam,
    factorization,
    gradient,
    perturbation,
    refinement,
    relevance,
    saliency,
    segments,
)

__all__ = [
    "activation",
    "attention",
    "cam",
    "factorization",
    "gradient",
    "perturbation",
    "refinement",
    "relevance",
    "saliency",
    "segments",
]
