"""The gRPC face: thin servicers, who may call what, conversion, and errors to status codes."""
