# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of the images that were released on a workload: an annotation with a JSON list, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, MERGE_PATCH, Change, Manifest, Ref, annotations, metadata
from .rollout import rollout_status, template_images
from .workload import check_image

RELEASED_IMAGES = ANNOTATION_PREFIX + "released-images"
MOST_IMAGES = 10


def released_images(workload: Manifest) -> list[str]:
    """Return the images that the workload's record names, newest first; empty where there is no record or it is none."""
    try:
        found = json.loads(annotations(workload).get(RELEASED_IMAGES) or "[]")
    except ValueError:
        return []
    return [image for image in found if isinstance(image, str)] if isinstance(found, list) else []


def with_released(record: Sequence[str], images: Iterable[str]) -> list[str]:
    """Return the record with these images as the newest, each image once and at most ten in all."""
    newest = list(dict.fromkeys(images))
    return (newest + [image for image in record if image not in newest])[:MOST_IMAGES]


def is_same_image(one: str, other: str) -> bool:
    """Return whether two references name the same image: equal, or with the same digest, wherever they are pulled from."""
    digests = [image.partition("@")[2] for image in (one, other)]
    return one == other or (digests[0] != "" and digests[0] == digests[1])


def plan_released(ref: Ref, workload: Manifest, images: Sequence[str] | None = None) -> Change:
    """Return the change that records these images as released; without them, those that the complete rollout runs."""
    present = released_images(workload)
    if not images:
        images = list(_images(workload).values())
        status = rollout_status({**workload, "kind": ref.kind})
        # The record itself is a change that the controller has to see: it is no reason to wait again.
        if not status.done and with_released(present, images) != present:
            raise InvalidRequest(
                f"the rollout of {ref} is not complete ({status.message}), so what it runs is not released; wait with wait_rollout first"
            )
    wanted = [check_image(image, f"images of {ref}") for image in images]
    record = with_released(present, wanted)
    before: Mapping[str, Any] = {"released_images": present}
    after = {"released_images": record}
    if record == present:
        return Change(before, after)
    patch = {
        "metadata": {
            "resourceVersion": metadata(workload).get("resourceVersion"),
            "annotations": {RELEASED_IMAGES: json.dumps(record)},
        }
    }
    return Change(before, after, patch, MERGE_PATCH, (f"marked {', '.join(dict.fromkeys(wanted))} as released on {ref}",))


def _images(workload: Manifest) -> dict[str, str]:
    """Return {container: image} of the workload's template."""
    return template_images((workload.get("spec") or {}).get("template") or {})
