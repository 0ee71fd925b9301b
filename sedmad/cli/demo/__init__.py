"""`sedmad demo`: a mesh of four nodes on this machine, a matrix of words, and one node that dies on the way.

nodes.py       daemons as child processes, each with a home of its own
words.py       the matrix, and which words are near each other
questions.py   asking without a pause while something happens, and checking every answer
story.py       what is told, in which order
"""
