"""Models and rules that grade open-ended answers, one file each."""
