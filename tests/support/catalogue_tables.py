"""The tables of docs/targets.md and docs/runtimes.md; `python -m tests.support.catalogue_tables` prints them."""

from controller.builds.targets import TargetProfile, load_profiles
from controller.spec.model import Packages
from controller.spec.runtimes import RuntimeKind, load_runtimes


def profile_rows() -> list[str]:
    return [_profile_row(profile) for profile in load_profiles().values()]


def profile_notes() -> list[str]:
    return [f"- `{profile.name}`: {profile.notes}" for profile in load_profiles().values() if profile.notes]


def distribution_rows() -> list[str]:
    return [
        f"| `{profile.name}` | {' '.join(f'`{name}`' for name in profile.bases)} |"
        for profile in load_profiles().values()
    ]


def runtime_rows() -> list[str]:
    return [_runtime_row(runtime) for runtime in load_runtimes().values()]


def runtime_notes() -> list[str]:
    return [f"- `{runtime.name}`: {runtime.notes}" for runtime in load_runtimes().values() if runtime.notes]


def _profile_row(profile: TargetProfile) -> str:
    accelerator = f"`{profile.accelerator.kind}`" if profile.accelerator else ""
    engines = " ".join(f"`{name}`" for name in profile.engines)
    cells = (f"`{profile.name}`", profile.description, f"`{profile.platform}`", accelerator, engines)
    return f"| {' | '.join(cells)} |"


def _runtime_row(runtime: RuntimeKind) -> str:
    fitting = " ".join(f"`{profile.name}`" for profile in load_profiles().values() if runtime.name in profile.engines)
    return f"| `{runtime.name}` | {runtime.description} | {_packages(runtime)} | {fitting} |"


def _packages(runtime: RuntimeKind) -> str:
    other = {kind: packages for kind, packages in runtime.accelerated.items() if packages != runtime.packages}
    parts = [(f"with {kind}: ", packages) for kind, packages in other.items()]
    said = [said for prefix, packages in [("", runtime.packages), *parts] if (said := _listed(prefix, packages))]
    return "; ".join(said) or "nothing"


def _listed(prefix: str, packages: Packages) -> str:
    names = " ".join(f"`{requirement}`" for requirement in packages.pypi)
    return f"{prefix}{names}" if names else ""


def main() -> None:
    for rows in (profile_rows(), profile_notes(), distribution_rows(), runtime_rows(), runtime_notes()):
        print("\n".join(rows), end="\n\n")


if __name__ == "__main__":
    main()
