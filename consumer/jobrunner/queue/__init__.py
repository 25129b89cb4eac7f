"""SQS: where it is, what we ask of it, how we wait while it fails; and Scheduler for jobs that wait.

Every wing above comes here to ask AWS; only the room that writes crons to Scheduler asks by itself. Any thread.
"""
