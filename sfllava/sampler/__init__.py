"""Video file or folder of images -> frames.

reading.py: `read_video`, which picks the decoder.
sampling.py: which frames of a video are sampled.
video.py: the result, `Video`.
container.py: what a video file declares about itself.
decord.py, pyav.py, images.py: the decoders; images.py also resizes frames.
pool.py: decoding in worker processes.
writing.py: writing video files.
"""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
