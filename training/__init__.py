"""The training that makes the nodes' weights: one engine, one stage per paper, recipes as data."""
