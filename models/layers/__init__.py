"""What a decoder is made of: kinds of layers as formulas over weights, and what such formulas are written in."""
