"""Video file -> frames: which frames are sampled, and how they are read."""
