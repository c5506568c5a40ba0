"""What is taken out of a store leaves nothing there on which Podman would stumble."""

import json
from pathlib import Path

from edge_agent.podman.storage.examine import Damage
from edge_agent.podman.storage.store import Store
from edge_agent.podman.storage.surgery import take_out


def test_a_layer_of_which_the_folder_is_gone_is_taken_out_with_all_its_links(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, entries in {
        "layers": [{"id": "sound"}, {"id": "lost", "parent": "sound"}],
        "images": [{"id": "image", "layer": "lost"}],
        "containers": [],
    }.items():
        store.index(name).parent.mkdir()
        store.index(name).write_text(json.dumps(entries))
    links = tmp_path / "overlay/l"
    links.mkdir(parents=True)
    for link, layer in {"FIRST": "lost", "SECOND": "lost", "OTHER": "sound"}.items():
        (links / link).symlink_to(f"../{layer}/diff")
    take_out(store, Damage("image", "layer lost has no files", "lost"), {"image"}, set())
    assert [link.name for link in links.iterdir()] == ["OTHER"]
    assert list(store.layers()) == ["sound"]
    assert not store.images()
