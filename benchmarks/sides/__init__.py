"""The sides of the benchmarks of training and of the portfolio.

work      what each is given
own       ours
peers     PyTorch, JAX, scikit-learn
products  NumPy's matrix products alone
table     SIDES: add one by adding a row
vbt       vectorbt, in a Python of its own
turns     each in a process of its own, taking turns
"""
