"""Whether an evaluation can be believed: red flags, their causes, and the verdict."""
