//! Class indices as numbers: `one_hot`, and how often each class is listed, `label_counts`.

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::tile::Tile;
use crate::device::code::{Cuda, Definition, DeviceCode, element};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;

/// Puts an axis of classes into the shape of the indices.
#[derive(Clone, Copy, Debug)]
struct OneHot {
    axis: usize,
    classes: usize,
    ignore_index: Option<i64>,
    dtype: Dtype,
}

/// Checks that indices are of i64 and that numbers of `dtype` can be computed with.
fn indices<'t>(op: &str, inputs: &'t [Type], dtype: Dtype) -> Result<&'t Type, OpError> {
    match inputs {
        [index] if index.dtype == Dtype::I64 && matches!(dtype, Dtype::F32 | Dtype::F64) => {
            Ok(index)
        }
        [index] => Err(OpError(format!(
            "{op}: expected scalar type Long but found {} (for numbers of {dtype})",
            index.dtype
        ))),
        _ => Err(OpError(format!("{op}: expected 1 input, got {}", inputs.len()))),
    }
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn attributes(&self) -> String {
        let OneHot { axis, classes, ignore_index, dtype } = self;
        format!("dim={axis} num_classes={classes} ignore_index={ignore_index:?} dtype={dtype}")
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let shape = &indices("one_hot", inputs, self.dtype)?.shape;
        let axis = self.axis.min(shape.rank());
        let (before, after) = shape.split_at(axis);
        let shape: Shape =
            before.iter().copied().chain([self.classes]).chain(after.iter().copied()).collect();
        Ok(vec![Type { dtype: self.dtype, shape }])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let shape = &inputs[0].ty.shape;
            let inner = shape[self.axis.min(shape.rank())..].iter().product();
            match self.dtype {
                Dtype::F64 => one_hot::<f64>(*self, inner),
                _ => one_hot::<f32>(*self, inner),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let shape = &inputs[0].ty.shape;
            let inner: usize = shape[self.axis.min(shape.rank())..].iter().product();
            let (width, classes) = (outputs[0].ty.shape.numel(), self.classes);
            let is_ignored = match self.ignore_index {
                Some(index) => format!("class_of == {index}ll"),
                None => "false".to_owned(),
            };
            let number = element(&outputs[0]);
            let call = format!(
                "for (int i = t; i < {width}; i += T) {{ \
                 const i64 class_of = {{0}}[i / {inner} / {classes} * {inner} + i % {inner}]; \
                 {{1}}[i] = {is_ignored} ? {number}(0) : class_of < 0 || class_of >= {classes} ? nan_of<{number}>() \
                 : {number}(class_of == i / {inner} % {classes}); }}"
            );
            Box::new(DeviceCode { call, width, ..DeviceCode::default() })
        });
    }
}

fn one_hot<T: Number>(of: OneHot, inner: usize) -> Box<dyn Kernel> {
    let classes = of.classes;
    Box::new(move |tile: &mut Tile<'_>| {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (indices, hot) = (inputs.get::<i64>(0), outputs.take::<T>());
            hot.fill(T::default());
            for (item, &index) in indices.iter().enumerate() {
                let (outer, inside) = (item / inner, item % inner);
                let at = |class: usize| (outer * classes + class) * inner + inside;
                match usize::try_from(index).ok().filter(|&class| class < classes) {
                    _ if of.ignore_index == Some(index) => {}
                    Some(class) => hot[at(class)] = T::from_f64(1.0),
                    None => (0..classes).for_each(|class| hot[at(class)] = T::from_f64(f64::NAN)),
                }
            }
        }
    })
}

/// Counts how often each class is listed along the last axis, up to the first number below 0.
#[derive(Clone, Copy, Debug)]
struct LabelCounts {
    dtype: Dtype,
}

impl Op for LabelCounts {
    fn name(&self) -> &'static str {
        "label_counts"
    }

    fn attributes(&self) -> String {
        format!("dtype={}", self.dtype)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let shape = indices("label_counts", inputs, self.dtype)?.shape.clone();
        Ok(vec![Type { dtype: self.dtype, shape }])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let classes = inputs[0].ty.shape.last().copied().unwrap_or(1);
            match self.dtype {
                Dtype::F64 => label_counts::<f64>(classes),
                _ => label_counts::<f32>(classes),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let shape = &inputs[0].ty.shape;
            let classes = shape.last().copied().unwrap_or(1);
            let lines = shape.numel() / classes.max(1);
            let call = format!("label_counts<T, {lines}, {classes}>(t, {{0}}, {{1}});");
            let text = include_str!("label_counts.cu");
            let definitions = vec![Definition::file("label_counts", text)];
            let width = outputs[0].ty.shape.numel();
            Box::new(DeviceCode { definitions, call, scratch_bytes: 0, width })
        });
    }
}

fn label_counts<T: Number>(classes: usize) -> Box<dyn Kernel> {
    Box::new(move |tile: &mut Tile<'_>| {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (labels, counts) = (inputs.get::<i64>(0), outputs.take::<T>());
            counts.fill(T::default());
            let lines = labels.chunks_exact(classes.max(1));
            for (labels, counts) in lines.zip(counts.chunks_exact_mut(classes.max(1))) {
                let listed = labels.iter().map_while(|&label| usize::try_from(label).ok());
                for label in listed {
                    match counts.get_mut(label) {
                        Some(count) => *count = *count + T::from_f64(1.0),
                        None => counts.fill(T::from_f64(f64::NAN)),
                    }
                }
            }
        }
    })
}

impl Var {
    /// Gives for each index a line of zeros with 1 at that class, in numbers of `dtype`; zeros for
    /// `ignore_index`, and NaN for an index that is no class.
    ///
    /// # Shape
    ///
    /// `self` is of i64; the result has one axis more, of `classes`, in front of axis `axis`.
    ///
    /// Source: `torch.nn.functional.one_hot`, which puts the axis last and raises for what is no class.
    #[must_use]
    pub fn one_hot(
        &self,
        axis: usize,
        classes: usize,
        ignore_index: Option<i64>,
        dtype: Dtype,
    ) -> Var {
        let of = if dtype.is_half() { Dtype::F32 } else { dtype };
        self.trace().apply(OneHot { axis, classes, ignore_index, dtype: of }, &[self]).to(dtype)
    }

    /// Counts how often each class is listed along the last axis, as long as that axis has classes. A list
    /// ends at its first number below 0; a number that is no class makes all counts of its list NaN.
    ///
    /// # Shape
    ///
    /// `self` is `[.., classes]`, of i64; the result has that shape.
    #[must_use]
    pub(crate) fn label_counts(&self, dtype: Dtype) -> Var {
        self.trace().apply(LabelCounts { dtype }, &[self])
    }
}
