"""What nothing needs any more goes; what the disk cannot take does not begin."""
