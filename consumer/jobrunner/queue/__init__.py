"""SQS: where it is, what we ask of it, how we wait while it fails. The only wing that knows botocore. Any thread."""
