"""The page's views."""

from django.urls import path

from shop import views

urlpatterns = [path("orders/<int:number>", views.order), path("reminders/<int:number>", views.reminder)]
