"""What a model is, as data: parts by name, composed, checked, described; nothing here allocates."""
