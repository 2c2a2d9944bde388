"""Synth time: what exists in an account, and who may touch what."""
