"""When in a video the answer is: spans from attention and from leaving frames out, scored as NExT-GQA scores them."""
