"""From text to tokens and back, and from logits to the next token."""
