"""Accuracy of every method on every reference and query: see README.md beside this file."""
