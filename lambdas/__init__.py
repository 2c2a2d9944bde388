"""Run time in AWS: the reward contract, the reward functions, the steps of the training workflow."""
