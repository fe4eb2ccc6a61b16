"""The archive of frames: segments of gatherers' journals → the lake, and back into tables."""
