"""Mutated files against the steps that read what strangers give."""
