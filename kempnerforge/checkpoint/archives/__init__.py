"""The files of torch and DCP: archives of tensors, pickled values, metadata; read, never run."""
