"""The backend that runs bundles: virtual environments, supervision, sandbox. See docs/design/baremetal.md."""
