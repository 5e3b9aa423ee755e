"""Learning images with several labels from one positive label each, and from yes/no answers."""
