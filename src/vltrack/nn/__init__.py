"""Layers and pretrained networks that trackers share: tensors in, tensors out."""
