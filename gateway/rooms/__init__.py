"""Rooms and the sessions in them. Knows neither Redis nor HTTP."""
