"""The demo web app: how a Flask app uses jobrunner."""
