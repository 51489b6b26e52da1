//! Configuration: declared (serde) to checked types, with the place of every error.
