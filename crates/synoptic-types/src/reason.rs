//! Why something was not done. EXPLAIN prints it; nothing is left here in silence.

use std::fmt;

/// Why an operator stays in the engine instead of going to the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// `synoptic.pushdown = 'none'`.
    PushdownOff,
    /// The connector has no such capability at all: `what` names it.
    NotCapable(String),
    /// This operator or function is not on the dialect's allow-list.
    NotOnAllowList(String),
    /// The source would compare or convert this type differently.
    DifferentMeaning(String),
    /// The value changes from row to row or call to call.
    Volatile(String),
    /// The source applies it to skip data only; every row is checked again here.
    PruningOnly,
    /// Moving what it yields, or doing the work there, costs more than doing it here.
    NotCheaper,
    /// What is below it is asked for more than once, and computed once for all.
    ComputedOnce,
    /// A filter that stays here stands between this operator and the source.
    BelowLocalFilter,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PushdownOff => write!(f, "synoptic.pushdown is 'none'"),
            Self::NotCapable(what) => write!(f, "the source cannot do {what}"),
            Self::NotOnAllowList(what) => write!(f, "{what} is not on the source's allow-list"),
            Self::DifferentMeaning(what) => write!(f, "{what}"),
            Self::Volatile(what) => write!(f, "{what} is volatile"),
            Self::PruningOnly => write!(f, "used at the source to skip data, checked again here"),
            Self::NotCheaper => write!(f, "would not be cheaper at the source"),
            Self::ComputedOnce => {
                write!(f, "what is below is asked for more than once, and computed once for all")
            }
            Self::BelowLocalFilter => write!(f, "a filter that stays here comes first"),
        }
    }
}
