"""A page of the layouts, modes, devices and launchers that were run."""
