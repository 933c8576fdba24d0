"""The Python interface of `import camcli`. Each name is imported when it is first used."""
