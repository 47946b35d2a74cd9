"""vltrack: name a target in a video with a sentence, a box, or both, and get its box in every frame."""
