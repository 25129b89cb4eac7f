import os

DATABASE = os.environ["DATABASE"]
