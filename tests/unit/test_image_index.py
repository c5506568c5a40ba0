"""The document that joins the images of a build."""

import json

from controller.builds.index import Member, image_index
from controller.builds.registry import INDEX_TYPE, MANIFEST_TYPE, Manifest

BODY = b"{}"
AMD64 = Member(Manifest("sha256:" + "a" * 64, 5, BODY, MANIFEST_TYPE), "linux/amd64", "x86-cpu")
CUDA = Member(Manifest("sha256:" + "b" * 64, 5, BODY, MANIFEST_TYPE), "linux/amd64", "x86-cuda")
ARM = Member(Manifest("sha256:" + "c" * 64, 5, BODY, MANIFEST_TYPE), "linux/arm/v7", "armv7-cpu")


def test_each_image_has_its_platform_with_variant_and_its_profile() -> None:
    document = json.loads(image_index([AMD64, CUDA, ARM], {"b": "2", "a": "1"}))
    assert (document["schemaVersion"], document["mediaType"]) == (2, INDEX_TYPE)
    assert [entry["platform"] for entry in document["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
    ]
    profiles = [entry["annotations"]["dev.longshore.profile"] for entry in document["manifests"]]
    assert profiles == ["x86-cpu", "x86-cuda", "armv7-cpu"]
    assert document["manifests"][0]["size"] == len(BODY)
    assert document["annotations"] == {"a": "1", "b": "2"}


def test_the_same_images_give_the_same_index() -> None:
    assert image_index([AMD64, ARM], {"a": "1", "b": "2"}) == image_index([AMD64, ARM], {"b": "2", "a": "1"})
