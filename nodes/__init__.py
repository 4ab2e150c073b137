"""Thin V1 node classes: sockets, widgets, words for a person, and one call into core."""
