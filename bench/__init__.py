"""Measurements. Each module measures one thing: `main()` prints what it saw and returns one last line, which begins
with the module's name. `python -m bench` runs all, `python -m bench NAME` one."""
