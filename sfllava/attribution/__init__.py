"""Which visual tokens an answer read, mapped back to the frames, and what leaving a part out changes."""
