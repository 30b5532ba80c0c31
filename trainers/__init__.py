"""Trainers of the NTP and NTP+KLAL checkpoints."""
