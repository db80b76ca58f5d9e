"""Reading of answers: what a completion finally says, and which number, option, yes or no, list or text that is."""
