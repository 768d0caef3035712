//! Writes every event into the archive, exactly once.
