"""GGUF files for llamazoo: llama models, quantised or not, and the tokenizers in them."""
