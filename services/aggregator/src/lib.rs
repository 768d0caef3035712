//! Derives the four metrics.
