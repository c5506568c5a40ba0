"""conda environments, laid out outside of their image without running anything of their packages."""
