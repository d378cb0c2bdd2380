//! Random profiles.
