//! The error codes of the contract, section 9.

use std::fmt;

/// What went wrong, as a client sees it: every error message starts with this word in brackets.
///
/// The set is closed on purpose. A new code is a change of the public contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is its own word in `as_str`")]
pub enum ErrorCode {
    Syntax,
    UnknownTable,
    UnknownColumn,
    Unsupported,
    InvalidOption,
    FreshnessUnmet,
    FreshnessUnprovable,
    SkewExceeded,
    TokenLost,
    ClockUnsynchronized,
    SourceUnavailable,
    RateLimited,
    BudgetExceeded,
    OutOfMemory,
    QueueFull,
    Timeout,
    OutcomeUnknown,
    Cancelled,
    Unauthenticated,
    PermissionDenied,
    Data,
    Internal,
}

impl ErrorCode {
    /// The word that stands in brackets at the start of a message, for example `UNKNOWN_TABLE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SYNTAX",
            Self::UnknownTable => "UNKNOWN_TABLE",
            Self::UnknownColumn => "UNKNOWN_COLUMN",
            Self::Unsupported => "UNSUPPORTED",
            Self::InvalidOption => "INVALID_OPTION",
            Self::FreshnessUnmet => "FRESHNESS_UNMET",
            Self::FreshnessUnprovable => "FRESHNESS_UNPROVABLE",
            Self::SkewExceeded => "SKEW_EXCEEDED",
            Self::TokenLost => "TOKEN_LOST",
            Self::ClockUnsynchronized => "CLOCK_UNSYNCHRONIZED",
            Self::SourceUnavailable => "SOURCE_UNAVAILABLE",
            Self::RateLimited => "RATE_LIMITED",
            Self::BudgetExceeded => "BUDGET_EXCEEDED",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::QueueFull => "QUEUE_FULL",
            Self::Timeout => "TIMEOUT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Cancelled => "CANCELLED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Data => "DATA",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.as_str())
    }
}
