"""How weights are made: pairs, labels, losses, the loop and the recipes. Knows no evaluation, no plot and no
page.
"""
