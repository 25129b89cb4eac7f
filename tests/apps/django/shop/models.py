"""The one table."""

from django.db import models


class Order(models.Model):
    number = models.IntegerField(primary_key=True)
    shipped = models.BooleanField(default=False)

    class Meta:
        db_table = "order"
