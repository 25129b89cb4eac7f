"""The one view, which sends as the page says."""

from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from jobrunner import enqueue
from jobs import orders  # as for a call by function
from shop.models import Order


@transaction.atomic
def order(request, number):
    Order.objects.create(number=number)
    transaction.on_commit(lambda: enqueue("orders.ship", {"number": number}))
    return HttpResponse(orders.__name__, status=202)


urlpatterns = [path("orders/<int:number>", order)]
