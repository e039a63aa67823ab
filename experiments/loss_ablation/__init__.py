"""Which terms of the training loss earn their place?"""
