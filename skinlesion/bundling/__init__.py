"""How a bundle is made: PyTorch models to one ONNX graph, compared with them, and written with what goes with it."""
