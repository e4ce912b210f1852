"""Where documents come from: the interpreter's library, files, the Hugging Face hub."""
