"""ONNX host part to C++: names, literals, constants, memory plan, statements, text."""
