"""Models for other programs: llama.cpp's GGUF, ONNX, and Hugging Face's hub with a model card."""
