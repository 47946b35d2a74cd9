"""Training of the grounder: material, scenes, phrases, loop."""
