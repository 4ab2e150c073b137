"""`kintsugi serve`: ComfyUI's web canvas on our executor. Nothing of it is imported before that command runs."""
