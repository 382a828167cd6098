//! Ways, searches and what strangers can do to them.
