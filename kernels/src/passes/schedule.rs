//! Puts update rules early: a parameter is updated as soon as its gradient is there and nobody reads
//! the old numbers any more, so that a gradient lives for as short a time as possible.

use std::cmp::Ordering;

use crate::ir::program::{Node, Origin, Program};
use crate::passes::clean::rebuild;
use crate::passes::fuse::readers;

/// Moves nodes that work in place to the earliest point at which they may run.
pub(super) fn update_early(program: Program) -> Program {
    if program.nodes.iter().all(|node| node.op.in_place().is_empty()) {
        return program;
    }
    let readers = readers(&program);
    let mut order = Order::new(program.nodes.len());
    for (index, node) in program.nodes.iter().enumerate() {
        if !node.op.in_place().is_empty() {
            order.put_after_last(index, waits_for(&program, &readers, index, node));
        }
    }
    let nodes = order.list().into_iter().map(|index| program.nodes[index].clone()).collect();
    rebuild(&program, nodes, &vec![true; program.values.len()])
}

/// Lists the nodes that a node has to wait for: those that make what it reads, and those that read what it changes.
fn waits_for<'a>(
    program: &'a Program,
    readers: &'a [Vec<usize>],
    index: usize,
    node: &'a Node,
) -> impl Iterator<Item = usize> + 'a {
    let made = node.inputs.iter().filter_map(|&id| match program.values[id].origin {
        Origin::Node { node, .. } => Some(node),
        _ => None,
    });
    let pairs = node.op.in_place().iter();
    let changed = pairs.filter_map(|&(input, _)| node.inputs.get(input).copied());
    let others = changed.flat_map(|id| readers[id].iter().copied());
    made.chain(others).filter(move |other| *other != index)
}

/// An order of nodes, some of which are moved to just behind another, where the one that was moved last is first: a
/// tree, whose root stands for the start. A node that stays is a child of the root.
struct Order {
    /// For each node that was moved, the node that it is behind, or the start.
    moved: Vec<Option<Behind>>,
    /// For each node, those that were moved to just behind it; likewise for the start, which is last.
    followers: Vec<Vec<usize>>,
}

#[derive(Clone, Copy)]
struct Behind {
    /// The node that it is behind; `None` at the start.
    node: Option<usize>,
    /// The node that stays which is the last before it; `None` at the start.
    stays: Option<usize>,
    /// How many moved nodes it is behind, one behind the other.
    depth: usize,
}

impl Order {
    fn new(nodes: usize) -> Self {
        Order { moved: vec![None; nodes], followers: vec![Vec::new(); nodes + 1] }
    }

    /// Moves node `index` to just behind the last one of `others`, unless that is behind it. Nodes come in order.
    fn put_after_last(&mut self, index: usize, others: impl Iterator<Item = usize>) {
        let last = others.max_by(|&a, &b| self.compare(a, b));
        let stays = last.and_then(|last| self.stays(last));
        if stays.is_some_and(|stays| stays > index) {
            return;
        }
        let depth = last.and_then(|last| self.moved[last]).map_or(0, |last| last.depth + 1);
        self.moved[index] = Some(Behind { node: last, stays, depth });
        let start = self.moved.len();
        self.followers[last.unwrap_or(start)].push(index);
    }

    /// Gives the last node that stays before a node, or at it.
    fn stays(&self, node: usize) -> Option<usize> {
        self.moved[node].map_or(Some(node), |behind| behind.stays)
    }

    /// Compares the places of two nodes.
    fn compare(&self, mut a: usize, mut b: usize) -> Ordering {
        let depth = |node: usize| self.moved[node].map_or(0, |behind| behind.depth + 1);
        let by_stays = self.stays(a).cmp(&self.stays(b));
        if by_stays.is_ne() || a == b {
            return by_stays;
        }
        let by_depth = depth(a).cmp(&depth(b));
        let above = |node: usize| self.moved[node].and_then(|behind| behind.node);
        while depth(a) > depth(b) {
            a = above(a).unwrap_or(b);
        }
        while depth(b) > depth(a) {
            b = above(b).unwrap_or(a);
        }
        if a == b {
            // One is behind the other.
            return by_depth;
        }
        while above(a) != above(b) {
            (a, b) = (above(a).unwrap_or(a), above(b).unwrap_or(b));
        }
        b.cmp(&a)
    }

    fn list(&self) -> Vec<usize> {
        let start = self.moved.len();
        let mut list = Vec::with_capacity(start);
        let mut next: Vec<usize> =
            (0..start).rev().filter(|&node| self.moved[node].is_none()).collect();
        next.extend(&self.followers[start]);
        while let Some(node) = next.pop() {
            list.push(node);
            next.extend(&self.followers[node]);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the definition: a list, in which each node is looked for.
    fn moved_one_by_one(waits: &[Option<Vec<usize>>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..waits.len()).collect();
        for (index, others) in waits.iter().enumerate() {
            let Some(others) = others else { continue };
            let place = |of: usize| order.iter().position(|&node| node == of).unwrap();
            let earliest = others.iter().map(|&other| place(other) + 1).max().unwrap_or(0);
            let now = place(index);
            if earliest < now {
                order.remove(now);
                order.insert(earliest, index);
            }
        }
        order
    }

    proptest! {
        #[test]
        fn nodes_are_moved_to_behind_the_last_one_that_they_wait_for(
            waits in prop::collection::vec(
                prop::option::of(prop::collection::vec((0..3_u8, any::<prop::sample::Index>()), 0..4)),
                1..40,
            ),
        ) {
            let n_nodes = waits.len();
            let waits: Vec<Option<Vec<usize>>> = waits
                .iter()
                .enumerate()
                .map(|(index, others)| {
                    let others = others.as_ref()?.iter().filter_map(|(kind, other)| match kind {
                        // Only now and then a later one: such a node stays.
                        0 if index % 3 == 0 => Some(other.index(n_nodes)),
                        _ if index == 0 => None,
                        _ => Some(other.index(index)),
                    });
                    Some(others.filter(|&other| other != index).collect())
                })
                .collect();
            let mut order = Order::new(n_nodes);
            for (index, others) in waits.iter().enumerate() {
                if let Some(others) = others {
                    order.put_after_last(index, others.iter().copied());
                }
            }
            prop_assert_eq!(order.list(), moved_one_by_one(&waits));
        }
    }
}
