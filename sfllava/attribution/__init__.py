"""Which visual tokens an answer attends to, mapped back to the frames; and what the answer loses without some."""
