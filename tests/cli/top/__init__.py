"""The live view: its sources against real workers and a real Redis, and its screens in a real terminal."""
