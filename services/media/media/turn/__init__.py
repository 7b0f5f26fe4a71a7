"""Turn-taking: when a caller speaks, what is played to them, and who yields. Sans-IO cores only."""
