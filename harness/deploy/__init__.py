"""A finished run -> export, conversation, model card, upload."""
