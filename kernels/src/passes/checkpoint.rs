//! Checkpointing: what a marked span of a forward pass makes is computed again on the way back, so that it need not be kept
//! until then.
//!
//! A recording marks [spans](Span) by [`Trace::checkpoint`](crate::ir::trace::Trace::checkpoint), and
//! [`differentiate`](super::differentiate) remembers where each backward pass goes through them. This pass comes after both,
//! before a program is [split](super::split), fused and planned. Where a gradient asks for a value of a span on the way back
//! through it, the nodes that make the value are put there once more, from what came into the span. They
//!
//! * draw the same random numbers, since [`Node::draw`] stays;
//! * read the same values of slots, so that a parameter is not updated before its last reader;
//! * store nothing: running statistics are those of the first time.
//!
//! Of a span within a span, the outer one's way back computes what comes into the inner one, and the inner one's way back
//! computes the rest. What lies in memory anyway by then, since a later part of the backward pass read it, is not computed
//! again: the result of one span that goes into the next one.
//!
//! Source: `torch.utils.checkpoint`, which computes whole spans again, and updates statistics twice.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::clean::rebuild;
use crate::ir::program::{Node, Origin, Program, Role, Span, Value, ValueId, Way};

/// When the way back runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// As a part of the program.
    AtOnce,
    /// As a program of its own, after all stores of the forward pass, with random states of another step. What draws random
    /// numbers, and what reads a slot that the forward pass stores to, is kept then.
    Later,
}

/// Computes the marked spans again on the way back, and drops the marks.
///
/// # Example
///
/// ```
/// use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_kernels::ir::shape::Type;
/// use neurarch_kernels::ir::trace::Trace;
/// use neurarch_kernels::passes::checkpoint::{WayBack, checkpoint};
/// use neurarch_kernels::passes::differentiate::backward;
///
/// let trace = Trace::new();
/// let x = trace.input(Type::new(Dtype::F32, [3]));
/// let y = trace.checkpoint(|| x.tanh().tanh());
/// let one = trace.constant(1.0, Dtype::F32, [3]);
/// let gradient = backward(&trace, &[(y, one)], &[x]);
/// let outputs: Vec<_> = gradient.into_iter().flatten().collect();
/// let program = trace.finish(&outputs)?;
/// let again = checkpoint(program.clone(), WayBack::AtOnce);
/// assert_eq!(again.nodes.len(), program.nodes.len() + 2, "each `tanh` once more");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.utils.checkpoint.checkpoint`.
pub fn checkpoint(mut program: Program, when: WayBack) -> Program {
    let spans = std::mem::take(&mut program.spans);
    let passes = spans.iter().flat_map(|span| &span.ways).map(|way| way.pass);
    let Some(first_back) = passes.min() else { return program };
    look_through_boundaries(&mut program);
    let kept = kept_nodes(&program, when);
    let nest = Nest::of(spans, program.nodes.len());
    let mut ways = nest.ways().into_iter().peekable();
    let mut again = Again {
        program: &program,
        nest: &nest,
        kept,
        active: Vec::new(),
        values: program.values.clone(),
        nodes: Vec::with_capacity(program.nodes.len()),
        outlives: HashMap::new(),
    };
    for (index, node) in program.nodes.iter().enumerate() {
        again.active.retain(|active| active.end > index);
        while let Some((span, way)) = ways.next_if(|(_, way)| way.start <= index) {
            again.active.push(Active { span, end: way.end, made: HashMap::new() });
        }
        let mut node = node.clone();
        if index >= first_back {
            let levels = again.active.len();
            for input in &mut node.inputs {
                *input = again.read(*input, levels, Reader::Back(index));
            }
        }
        again.nodes.push(node);
    }
    let Again { values, nodes, .. } = again;
    let live = vec![true; values.len()];
    rebuild(&Program { values, ..program }, nodes, &live)
}

/// Lets all readers of what crosses the boundary of a module call read what goes in there: the two are one value.
fn look_through_boundaries(program: &mut Program) {
    let mut same: Vec<ValueId> = (0..program.values.len()).collect();
    for node in &mut program.nodes {
        node.inputs.iter_mut().for_each(|input| *input = same[*input]);
        if node.op.boundary().is_some() {
            for (&output, &input) in node.outputs.iter().zip(&node.inputs) {
                same[output] = input;
            }
        }
    }
    program.outputs.iter_mut().for_each(|id| *id = same[*id]);
    program.stores.iter_mut().for_each(|(_, id)| *id = same[*id]);
}

/// Marks the nodes that would not compute the same again.
fn kept_nodes(program: &Program, when: WayBack) -> Vec<bool> {
    if when == WayBack::AtOnce {
        return vec![false; program.nodes.len()];
    }
    let is_gradient = |slot: usize| program.slots[slot].role == Role::Gradient;
    let stored = program.stores.iter().map(|&(slot, _)| slot).filter(|&slot| !is_gradient(slot));
    let stored: BTreeSet<_> = stored.collect();
    let is_stored = |&id: &ValueId| match program.values[id].origin {
        Origin::Slot(slot) => stored.contains(&slot),
        _ => false,
    };
    let is_kept = |node: &Node| node.op.is_random() || node.inputs.iter().any(is_stored);
    program.nodes.iter().map(is_kept).collect()
}

/// Spans, and which lie within which.
struct Nest {
    spans: Vec<Nested>,
    /// For each node, the innermost span that it is in.
    innermost: Vec<Option<usize>>,
}

struct Nested {
    nodes: Range<usize>,
    ways: Vec<Way>,
    /// The span around it.
    parent: Option<usize>,
    /// How many spans are around it.
    depth: usize,
}

/// Who reads a value.
#[derive(Clone, Copy)]
enum Reader {
    /// A node of a backward pass.
    Back(usize),
    /// A node that is computed again.
    Again(usize),
}

impl Nested {
    /// Returns whether a reader is within the span, or on the way back through it.
    fn contains(&self, reader: Reader) -> bool {
        match reader {
            Reader::Again(node) => self.nodes.contains(&node),
            Reader::Back(node) => {
                let mut ways = self.ways.iter();
                self.nodes.contains(&node) || ways.any(|way| way.nodes.contains(&node))
            }
        }
    }
}

impl Nest {
    /// Finds out which span lies within which. One that lies partly within another is left out.
    fn of(spans: Vec<Span>, n_nodes: usize) -> Self {
        let mut sorted: Vec<_> = spans.into_iter().enumerate().collect();
        // A span is recorded after those within it.
        sorted.sort_by_key(|(index, span)| {
            let Range { start, end } = span.nodes;
            (start, std::cmp::Reverse((end, *index)))
        });
        let mut nest = Nest { spans: Vec::new(), innermost: vec![None; n_nodes] };
        let mut open: Vec<usize> = Vec::new();
        for (_, Span { nodes, ways }) in sorted {
            while open.last().is_some_and(|&last| nest.spans[last].nodes.end <= nodes.start) {
                open.pop();
            }
            let parent = open.last().copied();
            let end = parent.map_or(n_nodes, |parent| nest.spans[parent].nodes.end);
            if nodes.is_empty() || nodes.end > end {
                continue;
            }
            open.push(nest.spans.len());
            nest.innermost[nodes.clone()].fill(Some(nest.spans.len()));
            nest.spans.push(Nested { nodes, ways, parent, depth: open.len() - 1 });
        }
        nest
    }

    /// Lists the ways back in their order, each with its span; outer ones first.
    fn ways(&self) -> Vec<(usize, Range<usize>)> {
        let all = self.spans.iter().enumerate();
        let all = all.flat_map(|(span, of)| of.ways.iter().map(move |way| (span, way)));
        let mut all: Vec<_> = all.map(|(span, way)| (span, way.nodes.clone())).collect();
        all.sort_by_key(|(span, way)| {
            (way.start, std::cmp::Reverse(way.end), self.spans[*span].depth, *span)
        });
        all
    }

    /// Returns the depth of the outermost span that a node is in and a reader is not.
    fn left(&self, node: usize, reader: Reader) -> Option<usize> {
        let spans = std::iter::successors(self.innermost[node], |&span| self.spans[span].parent);
        let left = spans.filter(|&span| !self.spans[span].contains(reader)).last();
        left.map(|span| self.spans[span].depth)
    }
}

/// A span through which a backward pass goes.
struct Active {
    span: usize,
    /// The first node behind the way through it.
    end: usize,
    /// What was computed again, for each value of the first time.
    made: HashMap<ValueId, ValueId>,
}

/// Where a value is to be read.
enum Source {
    There(ValueId),
    /// It has to be computed again, for that one of the active spans.
    Missing(usize),
}

/// Puts a program together anew.
struct Again<'a> {
    program: &'a Program,
    nest: &'a Nest,
    /// The nodes that are not computed again.
    kept: Vec<bool>,
    /// The spans through which the pass goes at the moment, outer ones first.
    active: Vec<Active>,
    /// The values so far: first those of the program.
    values: Vec<Value>,
    nodes: Vec<Node>,
    /// Values that lie in memory until the way back through spans of that depth and deeper, since something behind these
    /// reads them.
    outlives: HashMap<ValueId, usize>,
}

impl Again<'_> {
    /// Returns the node that makes a value, if it may be computed again.
    fn maker(&self, id: ValueId) -> Option<usize> {
        match self.program.values[id].origin {
            Origin::Node { node, .. } => Some(node).filter(|&node| !self.kept[node]),
            _ => None,
        }
    }

    /// Finds a value on the way back through the first `levels` active spans.
    fn source(&self, id: ValueId, levels: usize) -> Source {
        let Some(node) = self.maker(id) else { return Source::There(id) };
        let is_of = |level: &usize| self.nest.spans[self.active[*level].span].nodes.contains(&node);
        let Some(level) = (0..levels).rev().find(is_of) else { return Source::There(id) };
        let (outer, own) = (&self.active[..level], &self.active[level]);
        if let Some(&made) = own.made.get(&id) {
            return Source::There(made);
        }
        let depth = self.nest.spans[own.span].depth;
        let is_there = |id: &ValueId| self.outlives.get(id).is_some_and(|&from| from <= depth);
        let before = outer.iter().rev().filter_map(|active| active.made.get(&id).copied());
        let before = before.chain([id]).find(is_there);
        before.map_or(Source::Missing(level), Source::There)
    }

    /// Returns what `reader` reads for a value, which is computed again if it has to be.
    fn read(&mut self, id: ValueId, levels: usize, reader: Reader) -> ValueId {
        if let Source::Missing(level) = self.source(id, levels) {
            self.make(id, level);
        }
        self.found(id, levels, reader)
    }

    /// Returns what `reader` reads for a value that is there.
    fn found(&mut self, id: ValueId, levels: usize, reader: Reader) -> ValueId {
        let Source::There(found) = self.source(id, levels) else { return id };
        let left = self.maker(id).and_then(|node| self.nest.left(node, reader));
        if let Some(depth) = left {
            let known = self.outlives.entry(found).or_insert(depth);
            *known = depth.min(*known);
        }
        found
    }

    /// Computes a value again for an active span, and all that this takes.
    fn make(&mut self, id: ValueId, level: usize) {
        let mut wanted = BTreeSet::new();
        let mut open: Vec<_> = self.maker(id).map(|node| (level, node)).into_iter().collect();
        while let Some((level, node)) = open.pop() {
            if !wanted.insert((level, node)) {
                continue;
            }
            for &input in &self.program.nodes[node].inputs {
                if let Source::Missing(level) = self.source(input, level + 1) {
                    open.extend(self.maker(input).map(|node| (level, node)));
                }
            }
        }
        // What is made for outer spans comes first, and of each span what was made first.
        for (level, index) in wanted {
            let node = &self.program.nodes[index];
            let mut new = node.clone();
            for input in &mut new.inputs {
                *input = self.found(*input, level + 1, Reader::Again(index));
            }
            for (output, place) in new.outputs.iter_mut().zip(0..) {
                let of = *output;
                *output = self.values.len();
                let origin = Origin::Node { node: index, output: place };
                self.values.push(Value { ty: self.program.ty(of).clone(), origin });
                self.active[level].made.insert(of, *output);
            }
            self.nodes.push(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::ir::shape::Type;
    use crate::ir::trace::{Trace, Var};
    use crate::passes::differentiate::backward;
    use crate::passes::split::{Cut, split_at};
    use crate::plan::{Plan, PlanOptions};
    use crate::testing::{Array, cases, planned_program, same_bits};

    const ROWS: usize = 16;
    const WIDTH: usize = 4;

    /// Runs layers `from..to`, those of each of the spans that begin there as a span.
    fn run(x: Var, layers: &[Layer], weights: &[Var], spans: &[Range<usize>]) -> Var {
        let (mut x, mut at) = (x, 0);
        while at < layers.len() {
            let inner = |span: &&Range<usize>| span.start == at;
            // Of those that begin here, the longest is outermost.
            let outer = spans.iter().filter(inner).max_by_key(|span| span.end).cloned();
            let Some(outer) = outer else {
                x = layers[at].run(&x, &weights[at]);
                at += 1;
                continue;
            };
            let end = outer.end;
            let within = spans.iter().filter(|span| **span != outer && span.end <= end);
            let within: Vec<_> = within
                .filter(|span| span.start >= at)
                .map(|span| span.start - at..span.end - at)
                .collect();
            let trace = x.trace().clone();
            x = trace.checkpoint(|| run(x, &layers[at..end], &weights[at..end], &within));
            at = end;
        }
        x
    }

    #[derive(Clone, Copy, Debug)]
    enum Layer {
        Linear,
        Tanh,
        Dropout,
        /// Reads what came in twice.
        Residual,
    }

    impl Layer {
        fn run(self, x: &Var, weight: &Var) -> Var {
            let half = || x.trace().constant(0.5, x.dtype(), []);
            x.trace().call("layer", "Layer", x, |x| match self {
                Layer::Linear => x.linear(weight, None),
                Layer::Tanh => x.tanh(),
                Layer::Dropout => x.dropout(&half()),
                Layer::Residual => &x + &x.linear(weight, None).tanh(),
            })
        }
    }

    /// A forward pass of layers, its sum of squares and all gradients.
    fn program(layers: &[Layer], spans: &[Range<usize>]) -> Program {
        let trace = Trace::new();
        let input = |shape| trace.input(Type::new(Dtype::F32, shape));
        let x = input([ROWS, WIDTH]);
        let weights: Vec<_> = layers.iter().map(|_| input([WIDTH, WIDTH])).collect();
        let y = run(x.clone(), layers, &weights, spans);
        let loss = (&y * &y).sum(&[], false);
        let one = trace.constant(1.0, Dtype::F32, []);
        let wrt = [&[x], &weights[..]].concat();
        let gradients = backward(&trace, &[(loss.clone(), one)], &wrt);
        let outputs: Vec<_> = [loss].into_iter().chain(gradients.into_iter().flatten()).collect();
        trace.finish(&outputs).expect("it is recorded")
    }

    fn arena(program: Program) -> usize {
        Plan::new(program, &PlanOptions::default()).expect("it is planned").arena_bytes()
    }

    /// As many spans as `checkpoint_sequential` makes, the last one is none.
    fn segments(layers: usize, segments: usize) -> Vec<Range<usize>> {
        let size = layers / segments;
        (0..segments - 1).map(|segment| segment * size..(segment + 1) * size).collect()
    }

    #[test]
    fn deep_networks_need_a_part_of_the_memory() {
        for (deep, spans, part) in [(24, 6, 2), (48, 8, 3)] {
            let layers = [Layer::Linear, Layer::Tanh].repeat(deep);
            let plain = arena(program(&layers, &[]));
            let spans = segments(layers.len(), spans);
            let less = arena(checkpoint(program(&layers, &spans), WayBack::AtOnce));
            assert!(less * part <= plain, "{deep} layers: {less} of {plain} bytes");
        }
    }

    #[test]
    fn what_goes_from_span_to_span_is_not_computed_again() {
        let layers = [Layer::Tanh; 6];
        let plain = program(&layers, &[]);
        let again = checkpoint(program(&layers, &segments(6, 3)), WayBack::AtOnce);
        // The gradient of `tanh` reads its result. That of the second span is not read behind it, that of the first is.
        assert_eq!(again.nodes.len(), plain.nodes.len() + 2 + 1);
    }

    #[test]
    fn what_is_in_a_span_of_a_span_is_made_twice() {
        let layers = [Layer::Tanh; 5];
        let plain = program(&layers, &[]).nodes.len();
        let (outer, inner) = (0..4, 0..2);
        let once = checkpoint(program(&layers, from_ref(&outer)), WayBack::AtOnce);
        assert_eq!(once.nodes.len(), plain + 4);
        let nested = checkpoint(program(&layers, &[outer, inner]), WayBack::AtOnce);
        assert_eq!(nested.nodes.len(), plain + 4 + 1, "the first one once more");
    }

    #[test]
    fn without_marks_nothing_changes() {
        let plain = program(&[Layer::Linear, Layer::Dropout], &[]);
        let text = |program: &Program| program.to_string();
        assert_eq!(text(&checkpoint(plain.clone(), WayBack::AtOnce)), text(&plain));
    }

    #[test]
    fn a_way_back_of_its_own_keeps_what_it_could_not_make_again() {
        let split = |when| {
            let trace = Trace::new();
            let x = trace.input(Type::new(Dtype::F32, [8]));
            let half = trace.constant(0.5, Dtype::F32, []);
            let y = trace.checkpoint(|| x.tanh().dropout(&half).sin());
            let dy = trace.input(y.ty().clone());
            let of_x = backward(&trace, &[(y.clone(), dy)], from_ref(&x));
            let outputs: Vec<_> = [y].into_iter().chain(of_x.into_iter().flatten()).collect();
            let program = checkpoint(trace.finish(&outputs).expect("it is recorded"), when);
            split_at(program, Cut { n_forward_inputs: 1, n_backward_outputs: 1, n_some: 0 })
        };
        let drawn = |split: &crate::passes::split::Split| {
            split.backward.nodes.iter().filter(|node| node.op.is_random()).count()
        };
        let (later, at_once) = (split(WayBack::Later), split(WayBack::AtOnce));
        assert_eq!((drawn(&later), drawn(&at_once)), (0, 1));
        // Mask and result of the dropout, and what went in; or that alone.
        assert_eq!((later.saved.len(), at_once.saved.len()), (3, 1));
    }

    #[test]
    fn spans_that_make_no_sense_are_left_out() {
        let layers = [Layer::Linear, Layer::Tanh, Layer::Tanh];
        let mut broken = program(&layers, from_ref(&(0..2)));
        let way = Way { pass: 9, nodes: 2..900 };
        for nodes in [Range { start: 3, end: 1 }, 1..900, 500..600, 2..5] {
            broken.spans.push(Span { nodes, ways: vec![way.clone()] });
        }
        let again = checkpoint(broken, WayBack::AtOnce);
        assert_eq!(again.verify(), Ok(()));
    }

    prop_compose! {
        fn layers()(kinds in prop::collection::vec(0..4_u8, 1..9)) -> Vec<Layer> {
            let kind = |kind| match kind {
                0 => Layer::Linear,
                1 => Layer::Tanh,
                2 => Layer::Dropout,
                _ => Layer::Residual,
            };
            kinds.into_iter().map(kind).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(cases(40)))]

        #[test]
        fn the_bits_are_the_same(
            layers in layers(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 1..9_usize), 0..5),
            seed in 0..1_000_usize,
        ) {
            let n = layers.len();
            let mut spans: Vec<Range<usize>> = Vec::new();
            for (start, length) in cuts {
                let start = start.index(n);
                let new = start..(start + length).min(n);
                let is_apart = |known: &Range<usize>| {
                    known.end <= new.start || new.end <= known.start
                        || known.start <= new.start && new.end <= known.end && *known != new
                        || new.start <= known.start && known.end <= new.end && *known != new
                };
                if spans.iter().all(is_apart) {
                    spans.push(new);
                }
            }
            let (plain, marked) = (program(&layers, &[]), program(&layers, &spans));
            let again = checkpoint(marked, WayBack::AtOnce);
            prop_assert_eq!(again.verify(), Ok(()));
            let number = |of: usize| move |i: usize| ((i * 7 + of * 13 + seed) % 19) as f64 / 16.0 - 0.5;
            let inputs: Vec<_> = plain.inputs.iter().enumerate().map(|(of, ty)| {
                Array::from_fn(ty.dtype, ty.shape.clone(), number(of))
            }).collect();
            let models = [inputs];
            let [expected, found] = [plain, again].map(|program| planned_program(program, &models));
            for (expected, found) in expected[0].iter().zip(&found[0]) {
                prop_assert!(same_bits(&expected.elements, &found.elements), "{spans:?}");
            }
        }
    }
}
