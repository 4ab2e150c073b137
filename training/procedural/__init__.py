"""Synthetic training pictures: textured dead leaves. No photo is read; every pixel follows from a seed.

`draw_scene` draws one picture, `load_bank` a memory-mapped array of many.
"""
