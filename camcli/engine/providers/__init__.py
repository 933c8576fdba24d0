"""Providers: how each tensor that a method asks for is found, recorded and computed."""
