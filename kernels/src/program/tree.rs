//! [`Tree`] and [`Arguments`]: what modules take and give, nested as a user's `forward` nests it.
//!
//! Source: `torch.utils._pytree`, and the arguments of a Python call.

use super::packed::PackedSequence;
use super::trace::Var;

/// A value, a number, or a structure of these: what a module takes or gives.
///
/// `V` is what stands at the leaves: a traced value ([`Var`]) in `forward`, an array outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tree<V = Var> {
    /// Nothing: Python's `None`.
    #[default]
    None,
    /// A value.
    Leaf(V),
    /// A number that all models share, known while tracing.
    Number(f64),
    /// A flag.
    Flag(bool),
    /// A tuple or a list.
    Tuple(Vec<Tree<V>>),
    /// A dictionary, in the order of insertion.
    Dict(Vec<(String, Tree<V>)>),
    /// Sequences of several lengths.
    Packed(PackedSequence<V>),
}

impl<V> Tree<V> {
    /// Visits the leaves in order.
    pub fn visit<'a>(&'a self, visit: &mut impl FnMut(&'a V)) {
        match self {
            Tree::None | Tree::Number(_) | Tree::Flag(_) => {}
            Tree::Leaf(leaf) => visit(leaf),
            Tree::Tuple(items) => items.iter().for_each(|item| item.visit(visit)),
            Tree::Dict(items) => items.iter().for_each(|(_, item)| item.visit(visit)),
            Tree::Packed(packed) => visit(&packed.data),
        }
    }

    /// Lists the leaves in order.
    pub fn leaves(&self) -> Vec<&V> {
        let mut leaves = Vec::new();
        self.visit(&mut |leaf| leaves.push(leaf));
        leaves
    }

    /// Replaces each leaf, in order.
    pub fn map<U>(self, f: &mut impl FnMut(V) -> U) -> Tree<U> {
        match self {
            Tree::None => Tree::None,
            Tree::Number(number) => Tree::Number(number),
            Tree::Flag(flag) => Tree::Flag(flag),
            Tree::Leaf(leaf) => Tree::Leaf(f(leaf)),
            Tree::Tuple(items) => Tree::Tuple(items.into_iter().map(|item| item.map(f)).collect()),
            Tree::Dict(items) => {
                Tree::Dict(items.into_iter().map(|(key, item)| (key, item.map(f))).collect())
            }
            Tree::Packed(packed) => Tree::Packed(packed.map(f)),
        }
    }

    /// Gives the value if this is one.
    pub fn leaf(&self) -> Option<&V> {
        match self {
            Tree::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// Gives the items of a tuple; anything else counts as a tuple of one.
    pub fn into_items(self) -> Vec<Tree<V>> {
        match self {
            Tree::Tuple(items) => items,
            item => vec![item],
        }
    }

    /// Says in Python's words what this is.
    pub fn type_name(&self) -> &'static str {
        match self {
            Tree::None => "NoneType",
            Tree::Leaf(_) => "Tensor",
            Tree::Number(_) => "float",
            Tree::Flag(_) => "bool",
            Tree::Tuple(_) => "tuple",
            Tree::Dict(_) => "dict",
            Tree::Packed(_) => "PackedSequence",
        }
    }
}

impl From<Var> for Tree {
    fn from(leaf: Var) -> Self {
        Tree::Leaf(leaf)
    }
}

impl From<&Var> for Tree {
    fn from(leaf: &Var) -> Self {
        Tree::Leaf(leaf.clone())
    }
}

impl<V> From<PackedSequence<V>> for Tree<V> {
    fn from(packed: PackedSequence<V>) -> Self {
        Tree::Packed(packed)
    }
}

impl From<f64> for Tree {
    fn from(number: f64) -> Self {
        Tree::Number(number)
    }
}

impl From<bool> for Tree {
    fn from(flag: bool) -> Self {
        Tree::Flag(flag)
    }
}

impl<T: Into<Tree>> From<Vec<T>> for Tree {
    fn from(items: Vec<T>) -> Self {
        Tree::Tuple(items.into_iter().map(T::into).collect())
    }
}

impl<T: Into<Tree>, const N: usize> From<[T; N]> for Tree {
    fn from(items: [T; N]) -> Self {
        Tree::Tuple(items.into_iter().map(T::into).collect())
    }
}

impl<A: Into<Tree>, B: Into<Tree>> From<(A, B)> for Tree {
    fn from((a, b): (A, B)) -> Self {
        Tree::Tuple(vec![a.into(), b.into()])
    }
}

/// What a call passes: positional arguments, then keyword arguments.
///
/// # Example
///
/// ```
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::trace::Trace;
/// # use neurarch_kernels::ir::tree::Arguments;
/// # use neurarch_kernels::ir::shape::Type;
/// # let trace = Trace::new();
/// let x = trace.input(Type::new(Dtype::F32, [2, 3]));
/// let arguments = Arguments::from(&x).with("factor", 2.0);
/// assert_eq!(arguments.positional.len(), 1);
/// assert_eq!(arguments.number("factor"), Some(2.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments<V = Var> {
    /// Those without a name: Python's `*args`.
    pub positional: Vec<Tree<V>>,
    /// Those with a name, in order: Python's `**kwargs`.
    pub keyword: Vec<(String, Tree<V>)>,
}

impl<V> Arguments<V> {
    /// Passes one argument, whatever it is.
    pub fn one(tree: Tree<V>) -> Self {
        Arguments { positional: vec![tree], keyword: Vec::new() }
    }

    /// Passes several values, each as an argument of its own.
    pub fn each(values: impl IntoIterator<Item = V>) -> Self {
        Arguments { positional: values.into_iter().map(Tree::Leaf).collect(), keyword: Vec::new() }
    }

    /// Passes the items of a tuple one by one, anything else as one argument: Python's `f(*x)`.
    pub fn spread(tree: Tree<V>) -> Self {
        Arguments { positional: tree.into_items(), keyword: Vec::new() }
    }

    /// Adds a keyword argument, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Tree<V>>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.keyword.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.keyword.push((name, value)),
        }
        self
    }

    /// Gives a keyword argument.
    pub fn get(&self, name: &str) -> Option<&Tree<V>> {
        self.keyword.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Takes a keyword argument out.
    pub fn take(&mut self, name: &str) -> Option<Tree<V>> {
        let place = self.keyword.iter().position(|(known, _)| known == name)?;
        Some(self.keyword.remove(place).1)
    }

    /// Gives a keyword argument that is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Tree::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Lists the values in order, those of positional arguments first.
    pub fn leaves(&self) -> Vec<&V> {
        let mut leaves = Vec::new();
        let all = self.positional.iter().chain(self.keyword.iter().map(|(_, value)| value));
        all.for_each(|tree| tree.visit(&mut |leaf| leaves.push(leaf)));
        leaves
    }

    /// Replaces each value, in the order of [`leaves`](Arguments::leaves).
    pub fn map<U>(self, f: &mut impl FnMut(V) -> U) -> Arguments<U> {
        Arguments {
            positional: self.positional.into_iter().map(|tree| tree.map(f)).collect(),
            keyword: self.keyword.into_iter().map(|(name, tree)| (name, tree.map(f))).collect(),
        }
    }
}

impl<T: Into<Tree>> From<T> for Arguments {
    fn from(value: T) -> Self {
        Arguments { positional: vec![value.into()], keyword: Vec::new() }
    }
}
