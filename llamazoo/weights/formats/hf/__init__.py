"""Hugging Face folders: config.json beside safetensors, one family of model types a file."""
