"""One reward function a file; this folder's listing is the registry."""
