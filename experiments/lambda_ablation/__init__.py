"""What is each lambda of G worth?"""
