"""How small a perturbation may be: searches of the smallest, and planes through images."""
