//! What a decision can be, and the reasons it comes with.

use std::fmt;
use std::time::Duration;

use synoptic_types::{
    AsOf, CopyKind, CopyName, ErrorCode, Moment, Position, SourceName, format_duration,
};

use crate::bound::LowerBound;

/// What to do with a statement now.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Read these copies.
    Read(Plan),
    /// Do all of these (side by side), put what they find into the facts, failures too, and ask
    /// again with a later `now`. Every action either changes the facts or lets time pass, so this
    /// ends.
    Need(Vec<Action>),
    /// It cannot be answered.
    Refuse(Refusal),
}

/// Something to find out before the choice can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the authoritative copy for its head, in a probe that starts at or after `not_before`;
    /// statements share it through [`Fences`](crate::Fences).
    Probe {
        /// The source.
        source: SourceName,
        /// A probe that started earlier proves too little.
        not_before: Moment,
    },
    /// Ask a copy where it is, until it has reached `position`, at most until `until`. When that
    /// has passed already, ask once.
    WaitFor {
        /// The source.
        source: SourceName,
        /// The copy.
        copy: CopyName,
        /// Where it must be.
        position: Position,
        /// When to stop waiting.
        until: Moment,
    },
    /// Wait for new facts from the background, at most until `until`.
    Pause {
        /// The source.
        source: SourceName,
        /// When to ask again at the latest.
        until: Moment,
    },
}

impl Action {
    /// The source it is about.
    pub fn source(&self) -> &SourceName {
        match self {
            Self::Probe { source, .. }
            | Self::WaitFor { source, .. }
            | Self::Pause { source, .. } => source,
        }
    }
}

/// One copy per source.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order of the demand.
    pub choices: Vec<Choice>,
    /// How far the copies would be apart if all were read at once now.
    pub skew: Duration,
}

/// How a choice is proved; the word in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The read of the authoritative copy starts after the statement arrived.
    StrongRead,
    /// The copy has applied a head that was sampled after the statement arrived.
    Fence,
    /// The copy has applied a head that was sampled within the bound.
    Position,
    /// Kept from a read whose interval is known, and not older than the bound.
    Kept,
    /// Nothing is proved within the bound: `on_unmet = 'stale'`.
    Unproved,
}

impl Method {
    /// The word in receipts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StrongRead => "strong_read",
            Self::Fence => "fence",
            Self::Position => "position",
            Self::Kept => "kept",
            Self::Unproved => "unproved",
        }
    }
}

/// The copy that all scans of one source read.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The source.
    pub source: SourceName,
    /// The copy.
    pub copy: CopyName,
    /// What it is.
    pub kind: CopyKind,
    /// Everything visible before is in the answer. For a strong read this is the moment of the
    /// decision, moved on when the read starts. `None`: nothing is known.
    pub lo: Option<Moment>,
    /// The interval of what is kept, for a copy that does not move.
    pub fixed: Option<AsOf>,
    /// How it is proved.
    pub method: Method,
    /// What the copy must hold when the read starts, asked on the reading connection in a query of
    /// its own *before* the snapshot is pinned.
    pub at_least: Option<Position>,
    /// What the client's token asks of this source.
    pub token: Option<LowerBound>,
    /// Whether the bound is met.
    pub satisfied: bool,
    /// The bound.
    pub bound: Duration,
    /// When the answer of the probe that proves it was here.
    pub(crate) finished: Option<Moment>,
    /// How far the copy lagged when it was chosen.
    pub lag: Lag,
    /// Every other copy of the source, in the order of the facts, and why it was not taken.
    pub refused: Vec<Refused>,
}

/// How far a copy lags. Nothing for the authoritative copy, and nothing that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// The most it can lag now, as far as is proved.
    pub proved: Option<Duration>,
    /// What it usually does not exceed: the 90th percentile of what was measured.
    pub usual: Option<Duration>,
}

impl fmt::Display for Lag {
    /// Nothing when nothing is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.proved, self.usual) {
            (None, None) => Ok(()),
            (Some(proved), None) => write!(f, "stale by up to {}", show(proved)),
            (None, Some(usual)) => write!(f, "usual lag up to {}", show(usual)),
            (Some(proved), Some(usual)) => {
                write!(f, "stale by up to {}, usual lag up to {}", show(proved), show(usual))
            }
        }
    }
}

/// A copy that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The copy.
    pub copy: CopyName,
    /// Why.
    pub reason: CopyReason,
    /// How far it lagged.
    pub lag: Lag,
}

impl fmt::Display for Refused {
    /// The reason, and how far it lags when the reason does not say so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = matches!(self.reason, CopyReason::Stale { .. } | CopyReason::Behind { .. });
        write!(f, "{}", self.reason)?;
        if self.lag == Lag::default() || said { Ok(()) } else { write!(f, " ({})", self.lag) }
    }
}

/// Why a copy was not taken. EXPLAIN and errors print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyReason {
    /// It would do, and another is cheaper.
    Dearer,
    /// The statement names another copy.
    NotAskedFor,
    /// It lacks a table or column.
    Lacks(String),
    /// It does not answer.
    Down(String),
    /// It has never told a position that can be compared.
    NoPosition,
    /// What it holds is proved to be this stale, more than the bound allows.
    Stale {
        /// Its staleness.
        proved: Duration,
        /// The bound.
        bound: Duration,
        /// Its usual lag (the 90th percentile), when it was measured.
        lag: Option<Duration>,
    },
    /// It follows, and nothing it has reached was sampled in the time we remember.
    Behind {
        /// The bound.
        bound: Duration,
        /// Its usual lag (the 90th percentile), when it was measured.
        lag: Option<Duration>,
    },
    /// It is on another branch of the log than the authoritative copy: it was not rewound after a
    /// promotion.
    Diverged,
    /// Its position cannot be compared with the head.
    Incomparable,
    /// There is no recent head to compare it with, and the authoritative copy does not answer.
    NoHead,
    /// It has not reached what the token asks for.
    TokenNotReached,
    /// It would be too far from the other sources.
    Skewed {
        /// How far at least.
        skew: Duration,
        /// The largest allowed.
        max_skew: Duration,
    },
    /// It cannot show an earlier state.
    NoTimeTravel,
    /// It does not hold yet what it held when it was chosen; the connection leads elsewhere.
    MovedBack,
}

impl CopyReason {
    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Dearer => "dearer",
            Self::NotAskedFor => "not_asked_for",
            Self::Lacks(_) => "lacks",
            Self::Down(_) => "down",
            Self::NoPosition => "no_position",
            Self::Stale { .. } => "stale",
            Self::Behind { .. } => "behind",
            Self::Diverged => "diverged",
            Self::Incomparable => "incomparable",
            Self::NoHead => "no_head",
            Self::TokenNotReached => "token_not_reached",
            Self::Skewed { .. } => "skewed",
            Self::NoTimeTravel => "no_time_travel",
            Self::MovedBack => "moved_back",
        }
    }
}

impl fmt::Display for CopyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lagging = |lag: &Option<Duration>| match lag {
            Some(lag) => format!("; usual lag up to {}", show(*lag)),
            None => String::new(),
        };
        match self {
            Self::Dearer => write!(f, "another copy is cheaper"),
            Self::NotAskedFor => write!(f, "the statement names another copy"),
            Self::Lacks(what) => write!(f, "{what}"),
            Self::Down(why) => write!(f, "does not answer: {why}"),
            Self::NoPosition => write!(f, "has no known position, so nothing can be proved"),
            Self::Stale { proved, bound, lag } => write!(
                f,
                "stale by up to {}, the bound is {}{}",
                show(*proved),
                show(*bound),
                lagging(lag)
            ),
            Self::Behind { bound, lag } => write!(
                f,
                "behind every head that is remembered, the bound is {}{}",
                show(*bound),
                lagging(lag)
            ),
            Self::Diverged => {
                write!(f, "on another timeline than the authoritative copy; rewind or rebuild it")
            }
            Self::Incomparable => write!(f, "its position cannot be compared with the head"),
            Self::NoHead => write!(f, "there is no recent head to compare it with"),
            Self::TokenNotReached => write!(f, "has not reached what the token asks for"),
            Self::Skewed { skew, max_skew } => {
                write!(f, "{} from the present, max_skew is {}", show(*skew), show(*max_skew))
            }
            Self::NoTimeTravel => write!(f, "cannot be read as of a time"),
            Self::MovedBack => write!(f, "does not hold any more what it held when it was chosen"),
        }
    }
}

/// Why a statement is refused: a code, and every copy of every source that failed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code a client sees.
    pub code: ErrorCode,
    /// The sources that cannot be read as asked.
    pub sources: Vec<SourceRefusal>,
}

/// Why one source cannot be read as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRefusal {
    /// The source.
    pub source: SourceName,
    /// The code that it alone would give.
    pub code: ErrorCode,
    /// One sentence about the source as a whole.
    pub what: String,
    /// Every copy, and why not; none when it is not for the copies to help, as with a lost token.
    pub copies: Vec<Refused>,
}

impl Refusal {
    /// Joins refusals; the gravest code leads.
    pub(crate) fn of(sources: Vec<SourceRefusal>) -> Self {
        let rank = |code: ErrorCode| match code {
            ErrorCode::TokenLost => 5,
            ErrorCode::ClockUnsynchronized => 4,
            ErrorCode::SkewExceeded => 3,
            ErrorCode::FreshnessUnmet => 2,
            _ => 1,
        };
        let code = sources.iter().map(|source| source.code).max_by_key(|code| rank(*code));
        Self { code: code.unwrap_or(ErrorCode::FreshnessUnprovable), sources }
    }

    /// What a user can do about it.
    pub fn hint(&self) -> &'static str {
        match self.code {
            ErrorCode::TokenLost => {
                "what the token stands for is gone; read again without it after checking your \
                 last writes (RESET synoptic.token)"
            }
            ErrorCode::ClockUnsynchronized => {
                "synchronise the server's clock (chronyd, ClockBound) or read without \
                 read_timestamp"
            }
            ErrorCode::SkewExceeded => {
                "raise synoptic.max_skew, or read with consistency = 'source'"
            }
            ErrorCode::FreshnessUnmet => {
                "raise synoptic.max_staleness, or SET synoptic.on_unmet = 'wait' or 'stale'"
            }
            _ => "configure a position for a copy, or SET synoptic.on_unmet = 'stale'",
        }
    }
}

impl fmt::Display for Refusal {
    /// Without the code, which the caller puts in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, source) in self.sources.iter().enumerate() {
            let separator = if n > 0 { ". " } else { "" };
            write!(f, "{separator}source '{}': {}", source.source, source.what)?;
            for (n, refused) in source.copies.iter().enumerate() {
                let separator = if n > 0 { "; " } else { ": " };
                write!(f, "{separator}copy '{}' {}", refused.copy, refused.reason)?;
            }
        }
        write!(f, ". {}", self.hint())
    }
}

/// A duration rounded up to the millisecond: a staleness is never shown smaller than it is.
pub(crate) fn show(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    format_duration(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}
