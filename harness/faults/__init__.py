"""The faults that can be injected, one module each."""
