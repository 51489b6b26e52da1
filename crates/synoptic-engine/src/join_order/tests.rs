//! Orders of small graphs against all orders there are.

use std::sync::Arc;

use proptest::prelude::*;

use synoptic_source::OperatorCosts;

use super::enumerate::{EXACT, order, pairs};
use super::estimate::matching;
use super::graph::{Best, Edge, Graph, Set, Tree, Vertex};

fn vertex(rows: f64, source: Option<usize>) -> Vertex {
    Vertex { rows, width: 8.0, source, costs: OperatorCosts::SERVER }
}

fn edge(i: usize, j: usize, selectivity: f64) -> Edge {
    let relations = Set::of(i).union(Set::of(j));
    Edge { relations, selectivity, equality: true, known: true }
}

/// A connected graph: a random tree, and edges more.
fn graphs(most: usize) -> impl Strategy<Value = Graph> {
    (2..=most).prop_flat_map(|n| {
        let vertices = proptest::collection::vec((0.0..6.0_f64, 0..4_usize), n);
        let tree = proptest::collection::vec((any::<prop::sample::Index>(), 0.0..6.0_f64), n - 1);
        let more = proptest::collection::vec(
            (0..n, 0..n, 0.0..4.0_f64, any::<bool>(), any::<bool>()),
            0..n,
        );
        (vertices, tree, more).prop_map(|(vertices, tree, more)| {
            let vertices =
                vertices.iter().map(|(rows, s)| vertex(10_f64.powf(*rows), (*s < 2).then_some(*s)));
            let tree = tree.iter().enumerate();
            let mut edges: Vec<_> = tree
                .map(|(i, (to, share))| edge(i + 1, to.index(i + 1), 10_f64.powf(-share)))
                .collect();
            for (i, j, share, equality, known) in more {
                if i != j {
                    edges.push(Edge { equality, known, ..edge(i, j, 10_f64.powf(-share)) });
                }
            }
            Graph { vertices: vertices.collect(), edges }
        })
    })
}

/// All trees without cross products over `set`, each joined by the graph's own costs.
fn all(graph: &Graph, set: Set) -> Vec<Best> {
    if set.len() == 1 {
        return set.indices().filter_map(|index| graph.leaf(index)).collect();
    }
    let mut found = Vec::new();
    for one in set.parts() {
        let other = set.without(one);
        if other.is_empty() || one > other || !graph.neighbours(one).meets(other) {
            continue;
        }
        for left in all(graph, one) {
            for right in all(graph, other) {
                found.push(graph.join(&left, &right));
            }
        }
    }
    found
}

fn connected(graph: &Graph, set: Set) -> bool {
    let mut reached = set.indices().next().map(Set::of).unwrap_or_default();
    loop {
        let more = Set(graph.neighbours(reached).0 & set.0);
        if more.is_empty() {
            return reached == set;
        }
        reached = reached.union(more);
    }
}

fn renumbered(graph: &Graph, to: &[usize]) -> Graph {
    let mut vertices = graph.vertices.clone();
    for (from, to) in to.iter().enumerate() {
        vertices[*to] = graph.vertices[from].clone();
    }
    let edges = graph.edges.iter().map(|edge| {
        let relations = edge.relations.indices().map(|index| Set::of(to[index]));
        Edge { relations: relations.fold(Set::default(), Set::union), ..edge.clone() }
    });
    Graph { vertices, edges: edges.collect() }
}

fn relations(tree: &Tree) -> Vec<usize> {
    match tree {
        Tree::Leaf(index) => vec![*index],
        Tree::Join(sides) => [relations(&sides.0), relations(&sides.1)].concat(),
    }
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1.0)
}

proptest! {
    #[test]
    fn the_cheapest_of_all_orders_is_found(graph in graphs(6)) {
        let whole = Set::up_to(graph.vertices.len() - 1);
        let least = all(&graph, whole).into_iter().map(|best| best.cost).fold(f64::INFINITY, f64::min);
        let found = order(&graph).expect("a graph with vertices");
        prop_assert!(close(found.cost, least), "{} instead of {least}: {}", found.cost, found.tree);
        let mut joined = relations(&found.tree);
        joined.sort_unstable();
        prop_assert_eq!(joined, whole.indices().collect::<Vec<_>>());
    }

    #[test]
    fn every_pair_of_connected_sets_is_met_once(graph in graphs(7)) {
        let whole = Set::up_to(graph.vertices.len() - 1);
        let mut want = Vec::new();
        for set in whole.parts() {
            for one in set.parts() {
                let other = set.without(one);
                if one < other && connected(&graph, one) && connected(&graph, other)
                    && graph.neighbours(one).meets(other) {
                    want.push((one, other));
                }
            }
        }
        let mut found: Vec<_> = pairs(&graph, whole)
            .into_iter()
            .map(|(one, other)| (one.min(other), one.max(other)))
            .collect();
        want.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, want);
    }

    #[test]
    fn the_numbers_of_relations_do_not_change_the_cost(
        (graph, to) in graphs(9).prop_flat_map(|graph| {
            let numbers: Vec<_> = (0..graph.vertices.len()).collect();
            (Just(graph), Just(numbers).prop_shuffle())
        })
    ) {
        let one = order(&graph).expect("a graph");
        let other = order(&renumbered(&graph, &to)).expect("a graph");
        prop_assert!(close(one.cost, other.cost) && close(one.rows, other.rows));
    }
}

/// 1 + 2 + … joined to one relation in the middle.
fn star(points: usize) -> Graph {
    let points = 1..=points;
    let mut vertices = vec![vertex(1e6, None)];
    vertices.extend(points.clone().map(|i| vertex(10.0 * i as f64, None)));
    let edges = points.map(|i| edge(0, i, 1.0 / (100.0 * i as f64))).collect();
    Graph { vertices, edges }
}

#[test]
fn many_relations_are_joined_greedily_and_none_is_crossed() {
    for points in [EXACT - 1, EXACT, 20, 63] {
        let best = order(&star(points)).expect("a star");
        let mut joined = relations(&best.tree);
        joined.sort_unstable();
        assert_eq!(joined, (0..=points).collect::<Vec<_>>());
        assert!(best.cost.is_finite() && best.cost < 1e6, "{}", best.cost);
    }
}

#[test]
fn what_nothing_links_is_crossed_last() {
    // Two large tables with a key in common, and one row beside them.
    let graph = Graph {
        vertices: vec![vertex(1e6, None), vertex(3.0, None), vertex(1e3, None)],
        edges: vec![edge(0, 2, 1e-6)],
    };
    let best = order(&graph).expect("a graph");
    assert_eq!(best.tree.to_string(), "(1 (2 0))");
    assert!(close(best.rows, 3e3));
}

#[test]
fn what_one_source_joins_to_little_is_joined_there() {
    // A large table, a filtered one beside it at the source, and a table here.
    let mut graph = Graph {
        vertices: vec![vertex(1e6, Some(0)), vertex(10.0, Some(0)), vertex(5e5, None)],
        edges: vec![edge(0, 1, 1e-4), edge(0, 2, 1e-6)],
    };
    let best = order(&graph).expect("a graph");
    assert_eq!(best.tree.to_string(), "((1 0) 2)");
    let there = best.cost;
    graph.vertices[1].source = Some(1);
    let apart = order(&graph).expect("a graph").cost;
    assert!(there < apart * 0.8, "{there} there, {apart} apart");
    // A guess is not pushed.
    graph.vertices[1].source = Some(0);
    graph.edges[0].known = false;
    assert!(close(order(&graph).expect("a graph").cost, apart));
}

#[test]
fn keys_meet_their_partners() {
    // Orders and their customers.
    assert_eq!(matching(&[(Some(1e5), Some(1e5))], 1.5e6, 1e5), (1e-5, true));
    // The parts of suppliers: two columns tell no more apart than there are rows.
    let parts = [(Some(2e4), Some(2e4)), (Some(1e3), Some(1e3))];
    let (share, known) = matching(&parts, 6e5, 8e4);
    assert!(known && close(share, 1.0 / 8e4), "{share}");
    // Nothing is known: the smaller table is taken for the one with the key.
    assert_eq!(matching(&[(None, None)], 1e6, 1e3), (1e-3, false));
    assert_eq!(matching(&[(Some(50.0), None)], 1e6, 1e3), (1.0 / 50.0, false));
    assert_eq!(matching(&[], 10.0, 10.0), (1.0, true));
}

#[test]
fn trees_are_shown_as_they_are() {
    let tree = Tree::Join(Arc::new((Tree::Leaf(3), Tree::Leaf(1))));
    assert_eq!(tree.to_string(), "(3 1)");
}
