"""Config files, one for each experiment of the paper."""
