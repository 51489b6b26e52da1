//! Splitting one table into ranges of its pages.
//!
//! `ctid >= '(a,0)' AND ctid < '(b,0)'` is a TID range scan: the server reads the pages from *a* to
//! *b* and no others. In one snapshot every row has one visible version, which has one `ctid`, so
//! ranges that cover all pages give every row exactly once, whatever happened to the table since
//! its pages were counted: the first range has no lower and the last no upper bound.

use synoptic_source::Fragment;

use super::options::Options;
use super::snapshot::is_splittable;
use super::statistics::Estimates;

const PAGE_SIZE: u64 = 8192;

/// Below this part of the rows an index decides what is read, and would be read once for each
/// range.
const FEW_ROWS: f64 = 0.02;

/// The first page of each range but the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges(Vec<u32>);

impl Ranges {
    /// Into how many ranges `fragment` is worth being split, and where.
    pub fn of(
        fragment: &Fragment,
        estimates: &Estimates,
        options: &Options,
        wanted: usize,
    ) -> Self {
        let whole = fragment.limit.is_none()
            && is_splittable(&fragment.table)
            && (fragment.filters.is_empty() || estimates.kept(&fragment.filters) >= FEW_ROWS);
        let pages = match estimates.pages() {
            Some(pages) if whole && pages.is_finite() && pages >= 0.0 => pages as u64,
            _ => 0,
        };
        let least = options.min_partition_size.0.div_ceil(PAGE_SIZE).max(1);
        let most = options.max_partitions.min(options.max_connections).max(1);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).min(u64::from(most));
        Self::even(pages, (pages / least).min(wanted))
    }

    /// One range of everything.
    #[cfg(test)]
    pub fn whole() -> Self {
        Self(Vec::new())
    }

    fn even(pages: u64, ranges: u64) -> Self {
        let start = |i: u64| u32::try_from(u128::from(pages) * u128::from(i) / u128::from(ranges));
        Self((1..ranges).filter_map(|i| start(i).ok()).collect())
    }

    /// The condition on `ctid` of each range; `None` where there is none.
    pub fn conditions(&self) -> Vec<Option<String>> {
        let from = |page: &u32| format!("ctid >= '({page},0)'::pg_catalog.tid");
        let to = |page: &u32| format!("ctid < '({page},0)'::pg_catalog.tid");
        (0..=self.0.len())
            .map(|i| {
                let lower = i.checked_sub(1).and_then(|before| self.0.get(before)).map(from);
                let upper = self.0.get(i).map(to);
                match (lower, upper) {
                    (Some(lower), Some(upper)) => Some(format!("{lower} AND {upper}")),
                    (one, other) => one.or(other),
                }
            })
            .collect()
    }

    /// What EXPLAIN adds to the text of the first range.
    pub fn note(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let starts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        let ranges = self.0.len() + 1;
        format!(
            " /* the first of {ranges} ctid ranges; the others begin at page {} */",
            starts.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_page_once() {
        assert_eq!(Ranges::even(10, 0), Ranges::whole());
        assert_eq!(Ranges::even(10, 1).conditions(), [None]);
        assert_eq!(Ranges::even(10, 3), Ranges(vec![3, 6]));
        assert_eq!(
            Ranges::even(10, 3).conditions(),
            [
                Some("ctid < '(3,0)'::pg_catalog.tid".to_owned()),
                Some(
                    "ctid >= '(3,0)'::pg_catalog.tid AND ctid < '(6,0)'::pg_catalog.tid".to_owned()
                ),
                Some("ctid >= '(6,0)'::pg_catalog.tid".to_owned()),
            ]
        );
        let last = u64::from(u32::MAX);
        assert_eq!(Ranges::even(last, 2), Ranges(vec![u32::MAX / 2]));
    }

    #[test]
    fn the_note_says_where_the_others_begin() {
        assert_eq!(Ranges::whole().note(), "");
        let note = Ranges::even(9, 3).note();
        assert_eq!(note, " /* the first of 3 ctid ranges; the others begin at page 3, 6 */");
    }
}
