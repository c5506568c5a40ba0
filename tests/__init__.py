import os

# gRPC's fork handlers can abort a child between fork and exec (https://github.com/grpc/grpc/issues/43055); read when
# gRPC is imported first.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
