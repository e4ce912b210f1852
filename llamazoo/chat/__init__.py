"""Conversations as text: chat templates, which strangers write, and messages, which other strangers write."""
