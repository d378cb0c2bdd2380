//! A profile like those of engines.
