//! The printed form of tensors and parameters, letter by letter torch's.

use std::fmt;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::tuple;

use super::{Tensor, read_number};

/// How many elements a tensor has at most that is printed in full.
const THRESHOLD: usize = 1000;
/// How many of them are printed at either end of an axis otherwise.
const EDGE: usize = 3;
/// How long a line is at most.
const WIDTH: usize = 80;
/// What a tensor starts with.
const PREFIX: &str = "tensor(";

/// torch's printed form: `tensor([1., 2.])`.
///
/// Source: `torch.Tensor.__repr__`.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&[]))
    }
}

impl Tensor {
    /// Prints it as a parameter.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_components::state::Tensor;
    /// let weight = Tensor::new("weight", ndarray::array![[1.5_f32, 2.0]].view());
    /// let printed = "Parameter containing:\ntensor([[1.5000, 2.0000]], requires_grad=True)";
    /// assert_eq!(weight.parameter_text(true), printed);
    /// ```
    ///
    /// Source: `torch.nn.Parameter.__repr__`.
    pub fn parameter_text(&self, requires_grad: bool) -> String {
        let suffixes: &[_] = if requires_grad { &["requires_grad=True".to_owned()] } else { &[] };
        format!("Parameter containing:\n{}", self.text(suffixes))
    }

    fn text(&self, more: &[String]) -> String {
        let mut suffixes = Vec::new();
        let shape = self.shape();
        let body = if self.is_uninitialized() || shape.contains(&0) {
            if shape.len() != 1 {
                suffixes.push(format!("size={}", tuple(shape)));
            }
            "[]".to_owned()
        } else {
            let size_bytes = self.dtype().size_bytes();
            let all = self.little_endian().chunks_exact(size_bytes);
            let numbers: Vec<_> = all.map(|element| self.element(element)).collect();
            let summarize = numbers.len() > THRESHOLD;
            let mut shown = Vec::new();
            visit(shape, &numbers, summarize, &mut |number| shown.push(number));
            let form = Form::of(self.dtype(), &shown);
            form.print(shape, &numbers, summarize, PREFIX.len())
        };
        if let Some(name) = named_dtype(self.dtype(), shape.contains(&0)) {
            suffixes.push(format!("dtype=torch.{name}"));
        }
        suffixes.extend(more.iter().cloned());
        let mut text = format!("{PREFIX}{body}");
        // torch counts the last line so.
        let mut last = text.len() - text.rfind('\n').map_or(0, |at| at + 1) + 2;
        for suffix in suffixes {
            if last + suffix.len() + 2 > WIDTH {
                text += &format!(",\n{}{suffix}", " ".repeat(PREFIX.len()));
                last = PREFIX.len() + suffix.len();
            } else {
                text += &format!(", {suffix}");
                last += suffix.len() + 2;
            }
        }
        text + ")"
    }

    fn element(&self, bytes: &[u8]) -> Element {
        let mut wide = [0; 8];
        match self.dtype() {
            Dtype::I64 => {
                wide.copy_from_slice(bytes);
                Element::Whole(i64::from_le_bytes(wide))
            }
            Dtype::Bool => Element::Truth(bytes != [0]),
            dtype => Element::Float(read_number(bytes, dtype)),
        }
    }
}

/// Names an element type where torch does: of a tensor with elements, where it does not follow from these.
fn named_dtype(dtype: Dtype, is_empty: bool) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => None,
        Dtype::I64 => is_empty.then_some("int64"),
        Dtype::Bool => is_empty.then_some("bool"),
        Dtype::F64 => Some("float64"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
    }
}

#[derive(Clone, Copy)]
enum Element {
    Float(f64),
    Whole(i64),
    Truth(bool),
}

/// Goes through the elements that are printed.
fn visit(shape: &[usize], numbers: &[Element], summarize: bool, deed: &mut impl FnMut(Element)) {
    let Some((&n, inner)) = shape.split_first() else {
        return numbers.first().copied().into_iter().for_each(deed);
    };
    let stride: usize = inner.iter().product();
    for i in (0..n).filter(|&i| !summarize || n <= 2 * EDGE || i < EDGE || i >= n - EDGE) {
        visit(inner, &numbers[i * stride..][..stride], summarize, deed);
    }
}

/// How the elements of one tensor are printed, all as wide as the widest.
///
/// Source: `torch._tensor_str._Formatter`.
struct Form {
    is_integral: bool,
    is_scientific: bool,
    width: usize,
}

impl Form {
    fn of(dtype: Dtype, shown: &[Element]) -> Self {
        let mut form = Form { is_integral: true, is_scientific: false, width: 1 };
        let finite = shown.iter().filter_map(|element| match *element {
            Element::Float(x) if x.is_finite() && x != 0.0 => Some(x),
            _ => None,
        });
        let finite: Vec<f64> = finite.collect();
        if dtype.is_float() {
            let most = finite.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            let least = finite.iter().fold(f64::INFINITY, |least, x| least.min(x.abs()));
            if finite.is_empty() {
                return form;
            }
            form.is_integral = finite.iter().all(|x| *x == x.ceil());
            form.is_scientific = most / least > 1000.0 || most > 1e8 || least < 1e-4;
        }
        let wide = |x: &Element| form.plain(*x).len();
        let width = match dtype.is_float() {
            true => finite.iter().map(|&x| wide(&Element::Float(x))).max(),
            false => shown.iter().map(wide).max(),
        };
        form.width = width.unwrap_or(1).max(1);
        form
    }

    fn plain(&self, element: Element) -> String {
        match element {
            Element::Whole(x) => x.to_string(),
            Element::Truth(x) => if x { "True" } else { "False" }.to_owned(),
            Element::Float(x) if x.is_nan() => "nan".to_owned(),
            Element::Float(x) if x.is_infinite() => {
                if x > 0.0 {
                    "inf".to_owned()
                } else {
                    "-inf".to_owned()
                }
            }
            Element::Float(x) if self.is_scientific => {
                let text = format!("{x:.4e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{digits}e{sign}{:02}", exponent.abs())
            }
            Element::Float(x) if self.is_integral => format!("{x:.0}."),
            Element::Float(x) => format!("{x:.4}"),
        }
    }

    fn print(
        &self,
        shape: &[usize],
        numbers: &[Element],
        summarize: bool,
        indent: usize,
    ) -> String {
        let Some((&n, inner)) = shape.split_first() else {
            return self.padded(numbers[0]);
        };
        let is_short = summarize && n > 2 * EDGE;
        let shown = (0..n).filter(|&i| !is_short || i < EDGE || i >= n - EDGE);
        let stride: usize = inner.iter().product();
        let one = |i: usize| match inner {
            [] => self.padded(numbers[i]),
            _ => self.print(inner, &numbers[i * stride..][..stride], summarize, indent + 1),
        };
        let mut parts: Vec<_> = shown.map(one).collect();
        if is_short {
            parts.insert(EDGE, if inner.is_empty() { " ...".to_owned() } else { "...".to_owned() });
        }
        let behind = " ".repeat(indent + 1);
        if inner.is_empty() {
            let per_line = (WIDTH.saturating_sub(indent) / (self.width + 2)).max(1);
            let lines: Vec<_> = parts.chunks(per_line).map(|line| line.join(", ")).collect();
            return format!("[{}]", lines.join(&format!(",\n{behind}")));
        }
        format!("[{}]", parts.join(&format!(",{}{behind}", "\n".repeat(inner.len()))))
    }

    fn padded(&self, element: Element) -> String {
        format!("{:>width$}", self.plain(element), width = self.width)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, ArrayView, Dimension};
    use neurarch_kernels::ir::dtype::{Element, bf16};

    use super::*;

    fn text<T: Element, D: Dimension>(array: ArrayView<'_, T, D>) -> String {
        Tensor::new("t", array).to_string()
    }

    /// `repr(tensor)` of torch 2.15.
    #[test]
    fn tensors_print_as_in_torch() {
        let f = |numbers: &[f32]| text(ndarray::aview1(numbers));
        let nan = f32::NAN;
        for (printed, expected) in [
            (f(&[1.0, 2.0, 3.0]), "tensor([1., 2., 3.])"),
            (f(&[1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])"),
            (f(&[1e9, 1.0]), "tensor([1.0000e+09, 1.0000e+00])"),
            (f(&[-1e-5, 12345.5]), "tensor([-1.0000e-05,  1.2346e+04])"),
            (f(&[100000.5, 2.0]), "tensor([1.0000e+05, 2.0000e+00])"),
            (f(&[nan, 1.0, f32::INFINITY]), "tensor([nan, 1., inf])"),
            (f(&[nan]), "tensor([nan])"),
            (f(&[0.0, 0.0]), "tensor([0., 0.])"),
            (f(&[]), "tensor([])"),
            (text(ndarray::arr0(1.5_f32).view()), "tensor(1.5000)"),
            (text(ndarray::arr0(7_i64).view()), "tensor(7)"),
            (text(ndarray::array![1.0_f64, 1.0].view()), "tensor([1., 1.], dtype=torch.float64)"),
            (
                text(ndarray::array![bf16::ONE, bf16::ONE].view()),
                "tensor([1., 1.], dtype=torch.bfloat16)",
            ),
            (text(Array::<f32, _>::zeros((2, 0)).view()), "tensor([], size=(2, 0))"),
            (
                text(ndarray::array![[1.5_f32, 2.0], [-0.25, 3.0]].view()),
                "tensor([[ 1.5000,  2.0000],\n        [-0.2500,  3.0000]])",
            ),
            (
                text(Array::from_elem((2, 2, 2), 0.5_f32).view()),
                "tensor([[[0.5000, 0.5000],\n         [0.5000, 0.5000]],\n\n        [[0.5000, 0.5000],\n         \
                 [0.5000, 0.5000]]])",
            ),
            (
                text(Array::from_shape_fn(13, |i| i as f32 * 1.25).view()),
                "tensor([ 0.0000,  1.2500,  2.5000,  3.7500,  5.0000,  6.2500,  7.5000,  8.7500,\n        10.0000, \
                 11.2500, 12.5000, 13.7500, 15.0000])",
            ),
            (
                text(Array::from_shape_fn(12, |i| i as f64 / 7.0).view()),
                "tensor([0.0000, 0.1429, 0.2857, 0.4286, 0.5714, 0.7143, 0.8571, 1.0000, 1.1429,\n        1.2857, \
                 1.4286, 1.5714], dtype=torch.float64)",
            ),
        ] {
            assert_eq!(printed, expected);
        }
        let truths = Tensor::from_little_endian("t".into(), Dtype::Bool, vec![2], vec![1, 0]);
        assert_eq!(truths.to_string(), "tensor([ True, False])");
    }

    #[test]
    fn large_tensors_are_shortened() {
        let line = text(Array::from_shape_fn(2000, |i| i as i64).view());
        assert_eq!(line, "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])");
        let matrix = text(Array::from_shape_fn((30, 40), |(i, j)| (i * 40 + j) as i64).view());
        let expected = "\
tensor([[   0,    1,    2,  ...,   37,   38,   39],
        [  40,   41,   42,  ...,   77,   78,   79],
        [  80,   81,   82,  ...,  117,  118,  119],
        ...,
        [1080, 1081, 1082,  ..., 1117, 1118, 1119],
        [1120, 1121, 1122,  ..., 1157, 1158, 1159],
        [1160, 1161, 1162,  ..., 1197, 1198, 1199]])";
        assert_eq!(matrix, expected);
    }

    /// `repr(torch.nn.Parameter(tensor))` of torch 2.15.
    #[test]
    fn parameters_print_as_in_torch() {
        let halves = |n: usize| Tensor::new("t", Array::from_elem(n, 0.5_f32).view());
        let seven = ["0.5000"; 7].join(", ");
        let expected =
            format!("Parameter containing:\ntensor([{seven}],\n       requires_grad=True)");
        assert_eq!(halves(7).parameter_text(true), expected);
        let whole = Tensor::new("t", ndarray::array![0_i64, 1, 2].view());
        assert_eq!(whole.parameter_text(false), "Parameter containing:\ntensor([0, 1, 2])");
        let empty = "Parameter containing:\ntensor([], requires_grad=True)";
        assert_eq!(halves(0).parameter_text(true), empty);
        let double = Tensor::new("t", Array::from_elem(9, 0.5_f64).view());
        let last = "0.5000],\n       dtype=torch.float64, requires_grad=True)";
        assert!(double.parameter_text(true).ends_with(last));
    }
}
