"""What a deployed ensemble needs to judge an image: numpy, OpenCV, Pillow, pydantic and onnxruntime, no torch."""
