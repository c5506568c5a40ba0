"""Runs the measurements."""

import importlib
import pkgutil
import sys

import bench


def names() -> list[str]:
    """All measurements: the modules that have a `main`."""
    found = sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))
    return [name for name in found if hasattr(importlib.import_module(f"bench.{name}"), "main")]


def main() -> None:
    wanted = sys.argv[1:] or names()
    if unknown := set(wanted) - set(names()):
        sys.exit(f"bench: no measurement named {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    lines = []
    for name in wanted:
        print(f"== {name}", flush=True)
        lines.append(importlib.import_module(f"bench.{name}").main())
        print(lines[-1], flush=True)
    if len(lines) > 1:
        print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
