"""Layers that two or more trackers share. Tensors in, tensors out: knows no image file, no sentence, no tracker."""
