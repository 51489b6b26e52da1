//! Sources, their tables and copies: a mutable host, an immutable snapshot per statement.
pub struct Host;
impl std::fmt::Debug for Host { fn fmt(&self, f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{f.write_str("Host")}}
