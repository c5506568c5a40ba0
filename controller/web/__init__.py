"""What the controller serves over HTTPS: the registry's token endpoint and a health page."""
