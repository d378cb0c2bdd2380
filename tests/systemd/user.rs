//! Scopes of an ordinary user's manager.
