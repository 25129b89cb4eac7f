"""The job that the page speaks of."""

import logging

from shop.models import Order


def ship(number):
    logging.getLogger("shop").info("shipping %s", number)
    assert Order.objects.filter(number=number).update(shipped=True)
