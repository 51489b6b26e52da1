//! What a source's work costs, as data for the engine's planner. It decides where work is done,
//! never answers.

/// Costs of one source: microseconds of one core, and ratios to a client-server database's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorCosts {
    /// Opening one more fragment: a round trip, a transaction, a thread.
    pub fragment: f64,
    /// A row from the source into a batch.
    pub row: f64,
    /// One byte of it.
    pub byte: f64,
    /// What a row and a byte of a table itself cost, as a ratio to those of a question over it: a
    /// table is read over several connections.
    pub scan: f64,
    /// Looking whether one value fits its column before an operator may run at the source.
    pub check: f64,
    /// A row into a group, as a ratio to a server's hash table.
    pub grouping: f64,
    /// A row into an aggregate of all rows, as a ratio to a server's.
    pub aggregate: f64,
    /// A row into or past a join, as a ratio to a server's.
    pub join: f64,
    /// Every other operator, as a ratio to a server's.
    pub other: f64,
}

impl OperatorCosts {
    /// A database server, as the engine's `cost.rs` measures it.
    pub const SERVER: Self = Self {
        fragment: 500.0,
        row: 0.3,
        byte: 0.006,
        scan: 0.75,
        check: 0.0,
        grouping: 1.0,
        aggregate: 1.0,
        join: 1.0,
        other: 1.0,
    };

    /// The costs of reading a table itself.
    pub fn of_scan(self) -> Self {
        Self { row: self.row * self.scan, byte: self.byte * self.scan, ..self }
    }
}
