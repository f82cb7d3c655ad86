"""The sides of the training benchmark.

work      what each is given
own       ours
peers     PyTorch, JAX, scikit-learn
products  NumPy's matrix products alone
table     SIDES: add one by adding a row
turns     each in a process of its own, taking turns
"""
