"""The student in PyTorch: encoder, memory bank, gate, decoder. Needs torch; robots run the exported graphs instead."""
