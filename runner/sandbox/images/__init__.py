"""Images: the base that every container shares, and one layer on top of it per candidate.

`base` builds the base images (`rootfs` gets a Debian, `wheels` gets the Python packages, `extra` locks those that
the user adds, `steps` reports them), `candidate` adds one commit's `workload/` to a base, `builder` talks to the
engine's builder, and `cleanup` removes images. The connection to the engine belongs to the caller: every function
takes a `docker.DockerClient`.
"""

from runner.sandbox.images.base import BaseImage, Kind, ensure_base, find_base
from runner.sandbox.images.candidate import Image, build_candidate, exists, find_candidate, layer_tar
from runner.sandbox.images.cleanup import remove_images
from runner.sandbox.images.steps import step

__all__ = [
    "BaseImage",
    "Image",
    "Kind",
    "build_candidate",
    "ensure_base",
    "exists",
    "find_base",
    "find_candidate",
    "layer_tar",
    "remove_images",
    "step",
]
