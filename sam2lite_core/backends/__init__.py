"""Runtimes that execute the student's graphs, one file each, behind one Protocol."""
