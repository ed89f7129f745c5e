"""What is proved of a classifier: interval bounds."""
