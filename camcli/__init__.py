"""camcli: what did this network look at?"""

__version__ = "0.1.0"
