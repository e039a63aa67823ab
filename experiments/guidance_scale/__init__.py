"""How far should a guided step go, and how many are worth their time?"""
