"""How the built-in transformer is made, from the built-in CNN and photographs without labels.

camcli/models/zoo/weights/README.md has the figures. The steps, a file each:

- `feature_cache`: cut views of the photographs and keep the CNN's features of them
- `teacher_maps`: ask slow methods where the object of each photograph is
- `augmentation`: make new inputs out of the cached features
- `student`: the transformer as it is trained
- `losses`: what the student learns from its teachers
- `training`: the steps of gradient descent
- `__main__`: the command
"""
