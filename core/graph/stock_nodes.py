"""ComfyUI's own nodes that workflows lean on, under their ids and names, so that the same files run headless."""

from __future__ import annotations

from . import stock_images, stock_primitives, stock_scaling

NODE_DISPLAY_NAMES: dict[type, str] = {
    stock_images.LoadImage: "Load Image",
    stock_images.SaveImage: "Save Image",
    stock_images.PreviewImage: "Preview Image",
    stock_scaling.ImageScale: "Upscale Image",
    stock_scaling.ImageScaleBy: "Upscale Image By",
    stock_scaling.ImageInvert: "Invert Image",
    stock_scaling.ImageBatch: "Batch Images",
    stock_scaling.MaskToImage: "Convert Mask to Image",
    stock_primitives.PrimitiveInt: "Int",
    stock_primitives.PrimitiveFloat: "Float",
    stock_primitives.PrimitiveString: "String",
    stock_primitives.PrimitiveStringMultiline: "String (Multiline)",
    stock_primitives.PrimitiveBoolean: "Boolean",
}

NODE_CLASS_MAPPINGS: dict[str, type] = {node.__name__: node for node in NODE_DISPLAY_NAMES}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {node.__name__: name for node, name in NODE_DISPLAY_NAMES.items()}
