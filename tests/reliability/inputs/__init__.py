"""The lists of bad inputs, a module for each part of the package."""
