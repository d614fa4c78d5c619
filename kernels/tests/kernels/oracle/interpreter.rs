//! A second back end: one value after another, one element after another, in double precision, by the formulas of
//! the documentation. It shares no code with the CPU's, takes no care of speed, and rounds nothing but whole numbers.

use neurarch_kernels::ir::op::{Backend, Op, OpError, ask};
use neurarch_kernels::ir::program::{Origin, Program};
use neurarch_kernels::ir::shape::{Operand, Type};
use neurarch_kernels::testing::Array;

use super::{
    elementwise, linalg, losses, products, recurrent, reductions, shapes, tables, updates,
};

/// The back end. An op of a test's own may give it a kernel; those of the crate are in its own tables, by the
/// name that they are printed under.
pub(crate) struct Oracle;

impl Backend for Oracle {
    const NAME: &'static str = "oracle";
    type Kernel = dyn Fn(&Call<'_>) -> Vec<Vec<f64>>;
}

/// One application of an op.
pub(crate) struct Call<'a> {
    pub(crate) name: &'a str,
    /// The settings, as printed.
    pub(crate) attributes: &'a str,
    /// The inputs.
    pub(crate) x: &'a [Array],
    /// The types of the outputs.
    pub(crate) outputs: &'a [Type],
}

/// Computes the elements of each output, row-major.
pub(crate) type Compute = fn(&Call<'_>) -> Vec<Vec<f64>>;

/// The ops that the oracle knows.
pub(crate) const TABLES: [&[(&str, Compute)]; 9] = [
    elementwise::TABLE,
    shapes::TABLE,
    reductions::TABLE,
    products::TABLE,
    losses::TABLE,
    tables::TABLE,
    updates::TABLE,
    linalg::TABLE,
    recurrent::TABLE,
];

/// Looks an op up by what [`key`] gives.
pub(crate) fn known(key: &str) -> Option<Compute> {
    TABLES.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == key).map(|of| of.1)
}

/// The name of an op; one that has two kinds of settings has two.
pub(crate) fn key(op: &dyn Op) -> String {
    let is_drawn = op.attributes().starts_with("drawn");
    format!("{}{}", op.name(), if is_drawn { " drawn" } else { "" })
}

/// Computes the outputs of a program for one model whose inputs, slots and scalars are given.
///
/// # Errors
///
/// If an op is not known here and gives no kernel either.
pub(crate) fn interpret(
    program: &Program,
    inputs: &[Array],
    slots: &[Array],
    scalars: &[f64],
) -> Result<Vec<Array>, OpError> {
    let mut values: Vec<Option<Array>> = program
        .values
        .iter()
        .map(|value| {
            let all =
                |x: f64| Array { ty: value.ty.clone(), elements: vec![x; value.ty.shape.numel()] };
            match value.origin {
                Origin::Input(input) => Some(inputs[input].clone()),
                Origin::Slot(slot) => Some(slots[slot].clone()),
                Origin::Scalar(scalar) => Some(all(scalars[scalar])),
                // A number of a program has the precision of its type.
                Origin::Constant(number) => {
                    let Array { ty, elements } = all(number);
                    Some(Array::new(ty.dtype, ty.shape, elements))
                }
                Origin::Node { .. } => None,
            }
        })
        .collect();
    for node in &program.nodes {
        let x: Vec<Array> = node
            .inputs
            .iter()
            .map(|&id| values[id].clone().expect("values come before what needs them"))
            .collect();
        let outputs: Vec<_> = node.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let found = apply(&*node.op, &x, &outputs)?;
        assert_eq!(found.len(), outputs.len(), "{}", node.op.name());
        for ((&id, ty), elements) in node.outputs.iter().zip(outputs).zip(found) {
            assert_eq!(elements.len(), ty.shape.numel(), "{}: {ty}", node.op.name());
            values[id] = Some(Array { ty, elements });
        }
    }
    let value = |id: usize| values[id].clone().expect("all nodes were computed");
    Ok(program.outputs.iter().map(|&id| value(id)).collect())
}

/// Applies one op: by its own kernel for this back end, or else by the table.
fn apply(op: &dyn Op, x: &[Array], outputs: &[Type]) -> Result<Vec<Vec<f64>>, OpError> {
    let attributes = op.attributes();
    let call = Call { name: op.name(), attributes: &attributes, x, outputs };
    let operands = |types: &mut dyn Iterator<Item = &Type>| -> Vec<Operand> {
        types.cloned().map(Operand::row_major).collect()
    };
    let of_inputs = operands(&mut x.iter().map(|x| &x.ty));
    match ask::kernel::<Oracle>(op, &of_inputs, &operands(&mut outputs.iter())) {
        Ok(kernel) => Ok(kernel(&call)),
        Err(error) => known(&key(op)).map(|compute| compute(&call)).ok_or(error),
    }
}

impl Call<'_> {
    /// The whole number behind `key`: 1 of `dim=1 keepdim` for `dim=`.
    pub(crate) fn number(&self, key: &str) -> i64 {
        let text = self.after(key);
        let end = text
            .char_indices()
            .find(|&(at, c)| !(c.is_ascii_digit() || at == 0 && c == '-'))
            .map_or(text.len(), |(at, _)| at);
        text[..end].parse().unwrap_or_else(|_| panic!("{key} in {}", self.attributes))
    }

    /// The text behind `key`.
    pub(crate) fn after(&self, key: &str) -> &str {
        let at = self.attributes.find(key);
        let at = at.unwrap_or_else(|| panic!("{}: {key} in {}", self.name, self.attributes));
        &self.attributes[at + key.len()..]
    }

    /// The whole numbers in brackets behind `key`: `dim=[0, 1]`, also in pairs.
    pub(crate) fn list(&self, key: &str) -> Vec<usize> {
        let text = self.after(key);
        let inside = text.trim_start().strip_prefix('[').and_then(|text| text.split_once(']'));
        let (inside, _) = inside.unwrap_or_else(|| panic!("{key} in {}", self.attributes));
        let numbers = inside.split([',', ' ', '(', ')']).filter(|part| !part.is_empty());
        numbers.map(|part| part.parse().expect("a whole number")).collect()
    }

    /// Says whether a flag is printed.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.attributes.split(' ').any(|word| word == flag)
    }

    /// The one number of input `input`.
    pub(crate) fn one(&self, input: usize) -> f64 {
        self.x[input].elements[0]
    }
}

/// Lists the coordinates of all elements of a shape, row-major.
pub(crate) fn coordinates(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &size in shape {
        all = all
            .iter()
            .flat_map(|before| {
                (0..size).map(move |i| before.iter().copied().chain([i]).collect::<Vec<_>>())
            })
            .collect();
    }
    all
}

/// The place of an element, row-major.
pub(crate) fn place(shape: &[usize], at: &[usize]) -> usize {
    assert_eq!(shape.len(), at.len());
    shape.iter().zip(at).fold(0, |place, (&size, &i)| place * size + i)
}

/// The element that stands at `at` of a shape that `x` broadcasts to.
pub(crate) fn broadcast(x: &Array, at: &[usize]) -> f64 {
    let shape = &x.ty.shape;
    let own: Vec<_> = shape
        .iter()
        .zip(&at[at.len() - shape.len()..])
        .map(|(&size, &i)| if size == 1 { 0 } else { i })
        .collect();
    x.elements[place(shape, &own)]
}
