//! Flight SQL in, Arrow out.
