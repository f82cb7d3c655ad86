"""A multi-layer perceptron and its backpropagation, written out by hand in NumPy.

Letters, everywhere in this package: B rows of a batch, I inputs and O outputs of a layer;
W (I, O) weights, b (O,) biases, z = x W + b pre-activations, a = f(z) activations.
"""
