"""Which objects a caller may see: an administrator all, a member those of its own user id."""

from controller.errors import NotFound, PermissionDenied
from controller.events.model import Project
from controller.rpc.interceptor import caller
from controller.store.access import Role
from longshore.errors import Reason


def visible_user() -> str:
    """The user id to which lists are limited; "" for an administrator."""
    principal = caller.get()
    return "" if principal.role is Role.ADMIN else principal.user_id


def require_project(project: Project) -> None:
    """Raises PermissionDenied where the caller may not act in this project."""
    user_id = visible_user()
    if user_id and project.user_id != user_id:
        message = f"{caller.get().name} may act in the projects of user {user_id} only"
        raise PermissionDenied(Reason.NOT_ALLOWED, message)


def require_visible(user_id: str, reason: Reason, message: str) -> None:
    """Raises NotFound, as for an object that does not exist, where it belongs to another user."""
    if visible_user() not in ("", user_id):
        raise NotFound(reason, message)
