//! SQL over live sources, as fresh as you ask.
