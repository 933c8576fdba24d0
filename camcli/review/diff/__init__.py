"""How two runs differ, as a check in CI."""
