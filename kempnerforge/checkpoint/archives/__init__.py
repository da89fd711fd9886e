"""What torch and DCP write: archives of tensors, pickled values, metadata; read, and never run."""
