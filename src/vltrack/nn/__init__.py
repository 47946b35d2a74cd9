"""Layers that two or more trackers share. Tensors in, tensors out: knows no file, no sentence, no tracker."""
