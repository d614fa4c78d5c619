//! [`repr`]: the printed form of a module tree, letter by letter torch's.

pub use neurarch_kernels::ir::shape::tuple;

use crate::module::none::NoModule;
use crate::module::parametrized::PARAMETRIZATIONS;
use crate::module::{Declare, DynModule};

/// Prints a module and all below it as torch does.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::repr::repr;
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(LeakyReLU::default());
/// assert_eq!(repr(&brain), "\
/// Sequential(
///   (0): Linear(in_features=4, out_features=16, bias=True)
///   (1): LeakyReLU(negative_slope=0.01)
/// )");
/// ```
///
/// Source: `repr(module)`: `torch.nn.Module.__repr__`, and that of `ModuleList`, which joins children that
/// look the same. A parameter without a dtype of its own is printed as float32.
pub fn repr(module: &dyn DynModule) -> String {
    let mut declared = Declare::default();
    module.declare(&mut declared);
    let children: Vec<_> =
        declared.children.iter().map(|(name, child)| (name.as_str(), repr(&**child))).collect();
    with_children(module, &children)
}

/// Prints a module whose children, under their names, are printed already.
pub fn with_children(module: &dyn DynModule, children: &[(&str, String)]) -> String {
    if module.is::<NoModule>() {
        return "None".to_owned();
    }
    let name = module.type_name();
    let is_parametrized = |(name, child): &(&str, String)| {
        *name == PARAMETRIZATIONS && child.starts_with("ModuleDict(")
    };
    let parametrized = format!("Parametrized{name}");
    let name = if children.iter().any(is_parametrized) { &parametrized } else { name };
    if module.joins_alike_in_repr() {
        let lines = grouped(children);
        return if lines.is_empty() { format!("{name}()") } else { block(name, &lines) };
    }
    let extra = module.extra_repr();
    let extra_lines = extra.split('\n').filter(|_| !extra.is_empty()).map(str::to_owned);
    let mut lines: Vec<_> = extra_lines.collect();
    if children.is_empty() && lines.len() < 2 {
        return format!("{name}({extra})");
    }
    lines.extend(children.iter().map(|(name, child)| format!("({name}): {}", indented(child))));
    block(name, &lines)
}

/// Joins neighbors that look the same: `(0-2): 3 x Linear(...)`. They are counted, their names not read.
fn grouped(children: &[(&str, String)]) -> Vec<String> {
    let mut first = 0;
    let alike = children.chunk_by(|(_, a), (_, b)| a == b).map(|alike| {
        let (start, count, child) = (first, alike.len(), indented(&alike[0].1));
        first += count;
        match count {
            1 => format!("({start}): {child}"),
            _ => format!("({start}-{}): {count} x {child}", first - 1),
        }
    });
    alike.collect()
}

fn block(name: &str, lines: &[String]) -> String {
    format!("{name}(\n  {}\n)", lines.join("\n  "))
}

/// Moves all lines but the first two columns to the right.
fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// Prints a number as Python does: `0.01`, `1.0`, `1e-05`.
pub fn float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() { "nan".to_owned() } else { format!("{x}") };
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = x.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Prints a truth value as Python does: `True`, `False`.
pub fn boolean(x: bool) -> &'static str {
    if x { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::layers::*;

    /// Python: `repr(x)`.
    #[test]
    fn numbers_are_printed_as_python_does() {
        let cases = [
            (0.01, "0.01"),
            (1.0, "1.0"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (0.0001234, "0.0001234"),
            (1.23e-5, "1.23e-05"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e23, "1e+23"),
            (-0.0, "-0.0"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-1e-7, "-1e-07"),
            (100.0, "100.0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (x, printed) in cases {
            assert_eq!(float(x), printed);
        }
        assert_eq!([boolean(true), boolean(false)], ["True", "False"]);
    }

    #[test]
    fn each_layer_prints_its_settings() {
        let layers = Sequential::new()
            .push(Dropout::default())
            .push(LeakyReLU { negative_slope: 1e-5 })
            .push(ELU { alpha: 2.5 })
            .push(Softplus { beta: 2.0, threshold: 1e16 })
            .push(Softplus::default())
            .push(GELU::default())
            .push(GELU { approximate: Approximate::Tanh })
            .push(Softmax { dim: -1 })
            .push(LogSoftmax { dim: 1 })
            .push(Flatten::default())
            .push(Identity)
            .push(SiLU)
            .push(Linear::new(2, 3).without_bias());
        let printed = "\
Sequential(
  (0): Dropout(p=0.5, inplace=False)
  (1): LeakyReLU(negative_slope=1e-05)
  (2): ELU(alpha=2.5)
  (3): Softplus(beta=2.0, threshold=1e+16)
  (4): Softplus(beta=1.0, threshold=20.0)
  (5): GELU(approximate='none')
  (6): GELU(approximate='tanh')
  (7): Softmax(dim=-1)
  (8): LogSoftmax(dim=1)
  (9): Flatten(start_dim=1, end_dim=-1)
  (10): Identity()
  (11): SiLU()
  (12): Linear(in_features=2, out_features=3, bias=False)
)";
        assert_eq!(repr(&layers), printed);
        let dynamic: &dyn DynModule = &layers;
        assert_eq!((dynamic.repr(), layers.to_string()), (printed.to_owned(), printed.to_owned()));
    }

    #[test]
    fn only_lists_join_children_that_look_the_same() {
        let linear = || Linear::new(1, 1);
        let pair = || Sequential::new().push(Linear::new(1, 2)).push(Tanh);
        let list = ModuleList::from([linear(), linear(), linear()]).push(ReLU).push(linear());
        assert_eq!(
            repr(&list.push(pair()).push(pair())),
            "\
ModuleList(
  (0-2): 3 x Linear(in_features=1, out_features=1, bias=True)
  (3): ReLU()
  (4): Linear(in_features=1, out_features=1, bias=True)
  (5-6): 2 x Sequential(
    (0): Linear(in_features=1, out_features=2, bias=True)
    (1): Tanh()
  )
)"
        );
        let inner = ModuleList::from([linear(), linear()]);
        assert_eq!(
            repr(&ModuleList::from([inner.clone(), inner])),
            "\
ModuleList(
  (0-1): 2 x ModuleList(
    (0-1): 2 x Linear(in_features=1, out_features=1, bias=True)
  )
)"
        );
        assert_eq!(
            repr(&Sequential::from([Tanh, Tanh])),
            "Sequential(\n  (0): Tanh()\n  (1): Tanh()\n)"
        );
        let dropouts = ModuleList::from([Dropout { p: 0.1 }, Dropout { p: 0.2 }]);
        assert_eq!(
            repr(&dropouts),
            "\
ModuleList(
  (0): Dropout(p=0.1, inplace=False)
  (1): Dropout(p=0.2, inplace=False)
)"
        );
    }

    #[test]
    fn a_list_counts_its_children_whatever_their_names() {
        let mut list = ModuleList::from([Tanh]);
        list.insert(5, ReLU).expect("torch takes an index behind the end");
        assert_eq!(repr(&list), "ModuleList(\n  (0): Tanh()\n  (1): ReLU()\n)");
    }

    #[test]
    fn empty_containers_are_one_line() {
        let printed = [
            repr(&Sequential::new()),
            repr(&ModuleList::new()),
            repr(&ModuleDict::new()),
            repr(&ParameterList::new()),
            repr(&ParameterDict::new()),
        ];
        let expected =
            ["Sequential()", "ModuleList()", "ModuleDict()", "ParameterList()", "ParameterDict()"];
        assert_eq!(printed, expected);
    }

    #[test]
    fn parameters_are_printed_with_dtype_and_shape() {
        let one = |dtype| Parameter::zeros([2]).with_dtype(dtype);
        let list = ParameterList::from([one(Dtype::BF16), Parameter::zeros([2, 3])]);
        let dict = [("h", one(Dtype::F16)), ("i", one(Dtype::I64)), ("d", one(Dtype::F64))];
        let dict = ParameterDict::from_named(dict).expect("torch takes these names");
        let single = ParameterList::from([Parameter::zeros([])]);
        let printed = "\
Sequential(
  (0): ParameterList(
      (0): Parameter containing: [torch.bfloat16 of size 2]
      (1): Parameter containing: [torch.float32 of size 2x3]
  )
  (1): ParameterDict(
      (h): Parameter containing: [torch.HalfTensor of size 2]
      (i): Parameter containing: [torch.LongTensor of size 2]
      (d): Parameter containing: [torch.DoubleTensor of size 2]
  )
  (2): ParameterList(  (0): Parameter containing: [torch.float32 of size ])
)";
        assert_eq!(repr(&Sequential::new().push(list).push(dict).push(single)), printed);
    }
}
