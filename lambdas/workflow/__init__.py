"""The steps of the training workflow that Step Functions cannot do by itself, one handler a file."""
