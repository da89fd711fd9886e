"""Shutdown by signal, and the choice on resume, for training loops."""
