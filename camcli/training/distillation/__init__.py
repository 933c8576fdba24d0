"""How the embedded transformer is made: from the CNN it stands on, and photographs without labels.

weights/README.md has the figures. Each file is one step: `views` cuts photographs and keeps the
CNN's features of them, `evidence` asks slow teachers where the objects are, `mixing` makes new
inputs out of those features, `student` is the transformer in training, `losses` what it should
do, and `run` does it all.
"""
