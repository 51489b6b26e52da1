//! A query as a graph of relations and conditions, and what a join of some of them costs.
//!
//! Pure. The number of rows of a set of relations does not depend on the order they are joined in:
//! the product of their rows and of what each condition among them keeps.

use std::fmt;

use synoptic_source::OperatorCosts;

use crate::cut::cost;

/// Relations by number, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Set(pub u64);

/// What is joined.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vertex {
    /// Rows after its own filters, at least one.
    pub rows: f64,
    /// Bytes of a row.
    pub width: f64,
    /// The source that could join it with others of its own.
    pub source: Option<usize>,
    /// What rows and joins cost at that source.
    pub costs: OperatorCosts,
}

/// A condition over two or more relations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edge {
    pub relations: Set,
    /// Which part of the pairs it keeps.
    pub selectivity: f64,
    /// An equality of one relation with another, by which a hash join finds its pairs.
    pub equality: bool,
    /// Whether `selectivity` comes from statistics; the cut pushes no join whose size is a guess.
    pub known: bool,
}

/// What is to be joined, by which conditions. At most [`Set::CAPACITY`] relations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Graph {
    pub vertices: Vec<Vertex>,
    pub edges: Vec<Edge>,
}

/// The best way that was found to join a set of relations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Best {
    pub relations: Set,
    pub rows: f64,
    pub width: f64,
    /// To have the rows here, in microseconds of one core (see [`cost`]).
    pub cost: f64,
    pub tree: Tree,
    /// All of it at one source: what its joins cost there, and in which order.
    pub remote: Option<Remote>,
}

/// Joins that one source runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remote {
    pub source: usize,
    pub costs: OperatorCosts,
    pub work: f64,
    pub tree: Tree,
}

/// An order of joins.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Leaf(usize),
    Join(std::sync::Arc<(Tree, Tree)>),
}

impl Set {
    pub const CAPACITY: usize = 64;

    pub fn of(index: usize) -> Self {
        Self(1 << index)
    }

    pub fn up_to(index: usize) -> Self {
        Self(u64::MAX >> (63 - index))
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_within(self, other: Self) -> bool {
        self.without(other).is_empty()
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn indices(self) -> impl DoubleEndedIterator<Item = usize> {
        (0..Self::CAPACITY).filter(move |index| self.meets(Self::of(*index)))
    }

    /// Every part of it that is not empty, smaller numbers first; ends with the whole.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        let mut next = Some(0_u64);
        std::iter::from_fn(move || {
            let part = next?.wrapping_sub(self.0) & self.0;
            next = (part != self.0 && part != 0).then_some(part);
            (part != 0).then_some(Self(part))
        })
    }
}

impl Graph {
    /// Relations outside `set` that an equality links to it.
    pub fn neighbours(&self, set: Set) -> Set {
        let linked = self.edges.iter().filter(|edge| edge.equality && edge.relations.meets(set));
        linked.fold(Set::default(), |all, edge| all.union(edge.relations)).without(set)
    }

    /// Sets of relations that equalities link, each as large as it can be.
    pub fn components(&self) -> Vec<Set> {
        let mut left = Set((0..self.vertices.len()).fold(0, |all, index| all | Set::of(index).0));
        let mut components = Vec::new();
        while let Some(first) = left.indices().next() {
            let mut component = Set::of(first);
            loop {
                let more = self.neighbours(component);
                if more.is_empty() {
                    break;
                }
                component = component.union(more);
            }
            left = left.without(component);
            components.push(component);
        }
        components
    }

    /// How many rows the join of `set` has, at least one.
    pub fn rows(&self, set: Set) -> f64 {
        let rows: f64 =
            set.indices().filter_map(|i| self.vertices.get(i)).map(|v| v.rows).product();
        let within = self.edges.iter().filter(|edge| edge.relations.is_within(set));
        (rows * within.map(|edge| edge.selectivity).product::<f64>()).max(1.0)
    }

    /// One relation by itself.
    pub fn leaf(&self, index: usize) -> Option<Best> {
        let vertex = self.vertices.get(index)?;
        let tree = Tree::Leaf(index);
        let remote = vertex.source.map(|source| Remote {
            source,
            costs: vertex.costs,
            work: 0.0,
            tree: tree.clone(),
        });
        Some(Best {
            relations: Set::of(index),
            rows: vertex.rows,
            width: vertex.width,
            // What is read here anyway, whatever the order, does not tell orders apart.
            cost: remote.as_ref().map_or(0.0, |_| {
                cost::transfer(vertex.rows, vertex.width, &vertex.costs.of_scan())
            }),
            tree,
            remote,
        })
    }

    /// The join of two sets: here, or at the source of both when that costs less, as the cut
    /// decides later.
    pub fn join(&self, left: &Best, right: &Best) -> Best {
        let relations = left.relations.union(right.relations);
        let (rows, width) = (self.rows(relations), left.width + right.width);
        let work = cost::join_of_rows(left.rows, right.rows, rows);
        let known = || {
            let mut linking = self.edges.iter().filter(|edge| {
                edge.relations.is_within(relations)
                    && edge.relations.meets(left.relations)
                    && edge.relations.meets(right.relations)
            });
            linking.all(|edge| edge.known)
        };
        let remote = match (&left.remote, &right.remote) {
            (Some(one), Some(other)) if one.source == other.source && known() => Some(Remote {
                source: one.source,
                costs: one.costs,
                work: one.work + other.work + work.there * one.costs.join,
                tree: joined((&one.tree, left.rows), (&other.tree, right.rows)),
            }),
            _ => None,
        };
        let here = Best {
            relations,
            rows,
            width,
            cost: left.cost + right.cost + work.here,
            tree: joined((&left.tree, left.rows), (&right.tree, right.rows)),
            remote: None,
        };
        let there = remote.as_ref().map(|remote| {
            let cost = remote.work + cost::transfer(rows, width, &remote.costs);
            Best { cost, tree: remote.tree.clone(), remote: None, ..here.clone() }
        });
        let best = there.filter(|there| there.cost < here.cost).unwrap_or(here);
        Best { remote, ..best }
    }
}

impl Best {
    /// Keeps the better of each kind; the first of equals.
    pub fn improve(&mut self, other: Self) {
        let remote = match (self.remote.take(), other.remote.clone()) {
            (Some(one), Some(two)) if two.work < one.work => Some(two),
            (one, two) => one.or(two),
        };
        if other.cost < self.cost {
            *self = other;
        }
        self.remote = remote;
    }
}

/// The side with fewer rows to the left, where it is what a hash table is built of when DataFusion
/// has nothing better to go by.
fn joined(one: (&Tree, f64), other: (&Tree, f64)) -> Tree {
    let ((small, _), (large, _)) =
        match one.1 < other.1 || (one.1 == other.1 && one.0.first() < other.0.first()) {
            true => (one, other),
            false => (other, one),
        };
    Tree::Join(std::sync::Arc::new((small.clone(), large.clone())))
}

impl Tree {
    /// The least number in it.
    fn first(&self) -> usize {
        match self {
            Self::Leaf(index) => *index,
            Self::Join(sides) => sides.0.first().min(sides.1.first()),
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(index) => write!(f, "{index}"),
            Self::Join(sides) => write!(f, "({} {})", sides.0, sides.1),
        }
    }
}
