"""Fuzz: thousands of damaged inputs; none may end in a traceback, a wrong code or a number."""
