"""The library without any host: methods, models, imaging, degradation and the graph. Knows neither nodes nor ComfyUI."""
