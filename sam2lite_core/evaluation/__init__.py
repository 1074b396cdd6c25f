"""How good the masks are: scores, datasets' protocols, and a rendered clip whose truth is known."""
