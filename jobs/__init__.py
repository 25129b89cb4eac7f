"""The demo web app's jobs: plain functions, found by name. Yours go in a package like this one."""
