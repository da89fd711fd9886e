"""Reduces a failing scenario to the smallest one that fails in the same way."""
