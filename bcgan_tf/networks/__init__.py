"""Plain functional graphs, with no training logic in them."""
