//! Which of the numbers that PostgreSQL reports is the position.
//!
//! | asked | taken | why |
//! |---|---|---|
//! | head of a primary | `pg_current_wal_insert_lsn()` | with `synchronous_commit = off` a commit is visible before it is written or flushed, so `pg_current_wal_lsn()` and `pg_current_wal_flush_lsn()` miss visible commits |
//! | position of a standby | `pg_last_wal_replay_lsn()` | only what is replayed is visible; with the link cut, received = replayed says nothing |
//! | timeline | of the node that answers, in the same row | an address means nothing without it |
//!
//! `now() − pg_last_xact_replay_timestamp()` grows on an idle standby that has everything, and
//! compares two clocks; it is shown to people and proves nothing.
//!
//! * <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-BACKUP>
//! * <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL>
//! * <https://www.postgresql.org/docs/current/wal-async-commit.html>

use synoptic_types::{Epoch, Lsn, Position};

/// What a primary says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHead {
    /// `system_identifier` of `pg_control_system()` and the timeline that is written.
    pub epoch: Epoch,
    /// `pg_current_wal_insert_lsn()`.
    pub insert: Lsn,
    /// `pg_current_wal_flush_lsn()`: for people.
    pub flush: Lsn,
}

impl WalHead {
    /// The position that covers everything visible: the insert address.
    pub fn position(&self) -> Position {
        Position::Log { epoch: self.epoch, lsn: self.insert }
    }
}

/// What a standby says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalReplay {
    /// `system_identifier` and the timeline that is being replayed.
    pub epoch: Epoch,
    /// `pg_last_wal_receive_lsn()`: for people.
    pub received: Lsn,
    /// `pg_last_wal_replay_lsn()`.
    pub replayed: Lsn,
}

impl WalReplay {
    /// The position that a snapshot taken afterwards shows: the replayed address.
    pub fn position(&self) -> Position {
        Position::Log { epoch: self.epoch, lsn: self.replayed }
    }
}
