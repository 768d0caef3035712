//! All integration tests: one binary, many modules.
