"""Files of a build that come as one archive."""

from controller.builds.model import ContextFile
from controller.builds.uploads import UploadStore
from controller.errors import InvalidRequest


def expand(digest: str, uploads: UploadStore) -> tuple[ContextFile, ...]:
    """The files of an uploaded archive, each a content of its own in the uploads. Raises InvalidRequest."""
    raise InvalidRequest("archive", "archives are not taken yet; list the files")
