"""A person's terminal and CI: the `rft` command."""
