//! The tests are in `tests/`: each is named after the rule that it holds against a real Consul.
