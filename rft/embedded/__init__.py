"""The embedded AWS: the same templates, deployed and run on this machine with no account.

`aws` starts and stops it; `server` is the process it runs in; `emulator` fits the AWS emulator to what AWS
does; `bedrock` is the Bedrock in it, whose training really drives the deployed reward function.
"""
