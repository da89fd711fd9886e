"""Reads the files of torch and DCP without running them: tensor archives, values, metadata."""
