"""Models of other programs made into models of ours."""
