"""Faithfulness: does the network use what a map shows?"""
