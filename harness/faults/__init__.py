"""What can be injected, one module a fault."""
