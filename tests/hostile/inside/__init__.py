"""What runs inside the containers: part of a candidate's `workload/`, read by the tests for what they expect.

Standard library only, torch excepted; nothing happens on import.
"""
