"""The one table."""

from django.db import models


class Order(models.Model):
    number = models.IntegerField(primary_key=True)
    shipped = models.BooleanField(default=False)
    billed = models.BooleanField(default=False)
    rated = models.BooleanField(default=False)
    reminded = models.IntegerField(default=0)

    class Meta:
        db_table = "order"

    def ship(self):
        self.shipped = True
        self.save(update_fields=["shipped"])
