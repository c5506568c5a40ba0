"""Keeps the images of one agent sound: looks for damage, takes it out, and remembers what is safe on the disk."""

import threading
from collections.abc import Callable, Iterable, Set
from pathlib import Path

import structlog

from edge_agent.podman.storage.database import set_aside, told_of
from edge_agent.podman.storage.examine import Damage, content, structure
from edge_agent.podman.storage.links import mend_names
from edge_agent.podman.storage.locks import StoreBusy
from edge_agent.podman.storage.own import Notes
from edge_agent.podman.storage.sound import SoundLayers, write_out
from edge_agent.podman.storage.store import Image, Layer, Store, chain
from edge_agent.podman.storage.surgery import Untouchable, take_out
from edge_agent.runtime.backend import ArtifactDamaged, BackendUnavailable

log = structlog.get_logger()


class StorageKeeper:
    """Of the store at `root`, once that is known; does nothing where that is no overlay store of this machine, or not
    `enabled`. Its calls block; for threads. `own` gives the digests of the images that this agent fetched."""

    def __init__(self, folder: Path, own: Callable[[], Iterable[str]], *, enabled: bool = True) -> None:
        self._sound = SoundLayers(folder / "sound-layers.json")
        self._own = own
        self._notes = Notes(folder / "store.json")
        self._enabled = enabled
        self._store: Store | None = None
        self._lock = threading.Lock()

    def use(self, root: Path) -> None:
        store = Store(root)
        self._store = store if self._enabled and store.exists else None
        if self._store is not None:
            self._notes.note_root(root)

    def note_containers(self, ids: Set[str]) -> None:
        """These are the containers of this agent."""
        self._notes.note_containers(ids)

    def orphans(self, listed: Set[str]) -> list[str]:
        """Ids of this agent's containers that the store has and Podman does not list: its database has lost them."""
        known = self._notes.known
        if not self._enabled or not known.root:
            return []
        return sorted((Store(Path(known.root)).containers().keys() & set(known.containers)) - listed)

    def mend_database(self, said: str) -> bool:
        """Whether Podman may start where it did not, with what it `said`: its database was damaged, and is set aside.
        Raises BackendUnavailable where that would take something from others, or from what runs."""
        known = self._notes.known
        if not self._enabled or not known.root or not told_of(said):
            return False
        try:
            set_aside(Store(Path(known.root)), set(known.containers))
        except Untouchable as error:
            log.error("damaged_database_stays", used_by=str(error))
            message = f"Podman's database is damaged, and a new one would not know {error}: see `doctor`"
            raise BackendUnavailable("StorageDamaged", message) from error
        log.warning("damaged_database_set_aside", store=known.root)
        return True

    def layers(self) -> frozenset[str]:
        """Ids of all that are there."""
        return frozenset(self._store.layers()) if self._store is not None else frozenset()

    def name_layers(self) -> None:
        """Afterwards what is fetched can be built upon the layers that are there, also upon those of no image: a fetch
        that was cut off left them. Podman would take them as they are, and not be able to read what it built."""
        if self._store is None:
            return
        # The others are containers' own, or not complete: Podman may be about to write them.
        layers = {layer.id: layer for layer in self._store.layers().values() if layer.digest}
        tops = layers.keys() - {layer.parent for layer in layers.values()}
        if mended := [layer for top in tops for layer in mend_names(self._store, chain(layers, top))]:
            log.warning("layers_named_again", layers=sorted(set(mended)))

    def look(self, digest: str, *, thorough: bool) -> Damage | None:
        """Damage of the image with this digest, if it is there; `thorough` reads all of it. What can be mended without
        fetching anything is."""
        if self._store is None or (image := self._image(digest)) is None:
            return None
        layers = self._store.layers()
        if mended := mend_names(self._store, chain(layers, image.top)):
            log.warning("layers_named_again", image=digest, layers=mended)
        found = structure(self._store, image, layers)
        return found or (content(self._store, image, layers) if thorough else None)

    def all_of(self, digest: str, what: str) -> Damage | None:
        """The image with all its layers as damaged, where nobody knows more than `what`; None where it is not there."""
        if self._store is None or (image := self._image(digest)) is None:
            return None
        ids = chain(self._store.layers(), image.top)
        return Damage(image.id, what, ids[-1] if ids else "")

    def secure(self, digest: str, fresh: Set[str]) -> Damage | None:
        """Afterwards a power cut does not damage the image: what was not there before is written out. What was (all but
        the `fresh` layers) and is not known to be sound is read; None where nothing is damaged."""
        if self._store is None or (image := self._image(digest)) is None:
            return None
        layers = self._store.layers()
        ids = [layer for layer in chain(layers, image.top) if layer in layers]
        unknown = self._sound.unknown(layers[layer] for layer in ids)
        if not unknown:
            return None
        found = structure(self._store, image, layers) or content(self._store, image, layers, unknown - fresh)
        if found is None:
            write_out(self._store.root)
            self._remember([layers[layer] for layer in ids], layers.values())
        return found

    def _remember(self, sound: Iterable[Layer], present: Iterable[Layer]) -> None:
        with self._lock:
            self._sound.record(sound, present)

    def take_out(self, damage: Damage, reference: str, idle: Set[str]) -> None:
        """Afterwards what is damaged is gone, all that is sound is there still. `idle` are this agent's containers that
        do not run. Raises ArtifactDamaged where it has to stay."""
        if self._store is None:
            return
        try:
            with self._lock:
                take_out(self._store, damage, self._own_images(), idle)
        except (Untouchable, StoreBusy) as error:
            log.error("damaged_image_stays", image=reference, damage=damage.what, used_by=str(error))
            raise ArtifactDamaged(
                f"{reference} is damaged on this device ({damage.what}), and in use or not this agent's: {error}; "
                "remove that from Podman, then it is fetched again"
            ) from error
        log.warning("damaged_image_removed", image=reference, damage=damage.what, layer=damage.layer)

    def _image(self, digest: str) -> Image | None:
        assert self._store is not None
        return next((image for image in self._store.images().values() if image.called(digest)), None)

    def _own_images(self) -> set[str]:
        """Ids of those that nobody else has given a name."""
        assert self._store is not None
        own = set(self._own())
        images = self._store.images().values()
        return {image.id for image in images if {name.rpartition("@")[2] for name in image.names} <= own}
