"""A registry and a broker on this machine, as child processes: for demonstrations, tests and single-machine sites."""
