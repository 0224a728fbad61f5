//! Scenarios that need other programs on the machine; they stand in `tests/`, one file a neighbour.
