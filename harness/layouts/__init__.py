"""Layouts: what a checkpoint directory looks like."""
