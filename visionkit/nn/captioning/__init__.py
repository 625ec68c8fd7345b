"""What caption models are made of: recurrent cores, attention, decoders and beam search."""
