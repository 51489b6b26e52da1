//! The cheapest order of joins.
//!
//! Up to [`EXACT`] relations all orders without cross products are looked at, bushy ones among
//! them, by DPccp (Moerkotte and Neumann, *Analysis of Two Existing and One New Dynamic Programming
//! Algorithm*, VLDB 2006): every pair of linked sets that are connected in themselves is met exactly
//! once. With more, greedy operator ordering (Fegaras, 1998) joins the pair with the fewest rows,
//! again and again. Relations that no equality links come together last, fewest rows first.

use std::collections::HashMap;

use super::graph::{Best, Graph, Set};

/// Up to how many relations all orders are looked at: a clique of ten has 28,501 pairs.
pub(super) const EXACT: usize = 10;

/// The cheapest way to join all relations; `None` when there are none.
pub(super) fn order(graph: &Graph) -> Option<Best> {
    let mut components = Vec::new();
    for component in graph.components() {
        match component.len() as usize <= EXACT {
            true => components.push(exact(graph, component)?),
            false => {
                let leaves = component.indices().map(|index| graph.leaf(index));
                components.push(greedy(graph, leaves.collect::<Option<_>>()?)?);
            }
        }
    }
    greedy(graph, components)
}

/// DPccp over one component.
fn exact(graph: &Graph, component: Set) -> Option<Best> {
    let mut pairs = pairs(graph, component);
    // What a pair consists of was met before it.
    pairs.sort_by_key(|(one, other)| (one.union(*other).len(), *one, *other));
    let mut best: HashMap<Set, Best> = HashMap::new();
    for index in component.indices() {
        best.insert(Set::of(index), graph.leaf(index)?);
    }
    for (one, other) in pairs {
        let joined = graph.join(best.get(&one)?, best.get(&other)?);
        match best.get_mut(&joined.relations) {
            Some(known) => known.improve(joined),
            None => drop(best.insert(joined.relations, joined)),
        }
    }
    best.remove(&component)
}

/// Every pair of sets without a common relation, each connected in itself, that an equality links.
/// Each once, in one of its two orders.
pub(super) fn pairs(graph: &Graph, component: Set) -> Vec<(Set, Set)> {
    let mut connected = Vec::new();
    for index in component.indices().rev() {
        connected.push(Set::of(index));
        grow(graph, Set::of(index), Set::up_to(index), &mut connected);
    }
    let mut pairs = Vec::new();
    for one in connected {
        let Some(least) = one.indices().next() else { continue };
        let excluded = Set::up_to(least).union(one);
        let neighbours = graph.neighbours(one).without(excluded);
        for index in neighbours.indices().rev() {
            let mut others = vec![Set::of(index)];
            // Neighbours with smaller numbers get their turn, and their sets, themselves.
            let smaller = Set(neighbours.0 & Set::up_to(index).0);
            grow(graph, Set::of(index), excluded.union(smaller), &mut others);
            pairs.extend(others.into_iter().map(|other| (one, other)));
        }
    }
    pairs
}

/// Adds all connected sets that contain `set` and else nothing `excluded`.
fn grow(graph: &Graph, set: Set, excluded: Set, found: &mut Vec<Set>) {
    let neighbours = graph.neighbours(set).without(excluded);
    found.extend(neighbours.parts().map(|part| set.union(part)));
    let excluded = excluded.union(neighbours);
    for part in neighbours.parts() {
        grow(graph, set.union(part), excluded, found);
    }
}

/// Joins the pair with the fewest rows until one is left; linked ones before all others.
fn greedy(graph: &Graph, mut parts: Vec<Best>) -> Option<Best> {
    while parts.len() > 1 {
        let mut next: Option<(bool, f64, usize, usize)> = None;
        for (i, one) in parts.iter().enumerate() {
            let neighbours = graph.neighbours(one.relations);
            for (j, other) in parts.iter().enumerate().skip(i + 1) {
                let apart = !neighbours.meets(other.relations);
                let rows = graph.rows(one.relations.union(other.relations));
                if next.is_none_or(|(a, r, ..)| (apart, rows) < (a, r)) {
                    next = Some((apart, rows, i, j));
                }
            }
        }
        let (_, _, i, j) = next?;
        let other = parts.remove(j);
        parts[i] = graph.join(&parts[i], &other);
    }
    parts.pop()
}
