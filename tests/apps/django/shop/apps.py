"""What many apps do once they are loaded, while Django is not ready: import whoever sends jobs."""

from django.apps import AppConfig


class Shop(AppConfig):
    name = "shop"

    def ready(self):
        from jobs import orders

        assert orders.bill
