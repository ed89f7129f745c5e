"""The paper's tables, and their rows trained and measured anew."""
