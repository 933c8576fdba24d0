"""The Python interface: what `import camcli` gives. Each name is imported when it is first used."""
